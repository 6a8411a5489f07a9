/* Tables that sort by a column. */
for (const table of document.querySelectorAll("table.sortable")) {
  const value = (row, column) => row.cells[column].textContent.replace(/[,%]/g, "");
  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const head = button.closest("th"), column = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const order = (one, other) => {
      const a = value(one, column), b = value(other, column);
      if (a === "" || b === "") return (a === "") - (b === ""); // empty cells last
      return (up ? 1 : -1) * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  });
}
