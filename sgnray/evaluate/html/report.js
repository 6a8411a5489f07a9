"use strict";
(() => {
  const { classes, confusion, mistakes, scenes } = JSON.parse(document.getElementById("data").textContent);
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const { element } = SgnPlayer;

  /* The confusion matrix. */
  const matrix = document.getElementById("matrix"), status = document.getElementById("cell");
  const totals = confusion.map((row) => row.reduce((sum, count) => sum + count, 0));
  let chosen = null;
  function drawMatrix() {
    const ratio = window.devicePixelRatio || 1, style = getComputedStyle(matrix);
    const size = Math.round(matrix.clientWidth * ratio), cell = size / classes.length;
    matrix.width = matrix.height = size;
    const pen = matrix.getContext("2d");
    pen.fillStyle = style.getPropertyValue("--raised");
    pen.fillRect(0, 0, size, size);
    confusion.forEach((row, truth) => row.forEach((count, predicted) => {
      if (!count) return;
      pen.fillStyle = style.getPropertyValue(truth === predicted ? "--main" : "--second");
      pen.globalAlpha = 0.15 + 0.85 * Math.sqrt(count / totals[truth]);
      pen.fillRect(predicted * cell, truth * cell, Math.max(cell - 1, 1), Math.max(cell - 1, 1));
      pen.globalAlpha = 1;
    }));
    if (!chosen) return;
    pen.strokeStyle = style.getPropertyValue("--ink");
    pen.lineWidth = 2 * ratio;
    pen.strokeRect(chosen[1] * cell, chosen[0] * cell, cell, cell);
  }
  function choose(truth, predicted) {
    chosen = [truth, predicted];
    const count = confusion[truth][predicted], share = totals[truth] ? count / totals[truth] : 0;
    const what = truth === predicted ? "recognized" : `taken for “${classes[predicted]}”`;
    status.textContent = `“${classes[truth]}” ${what}: ${count} of ${totals[truth]} clips, ${percent(share)}`;
    drawMatrix();
  }
  function cellAt(event) {
    const place = (offset) => Math.floor((offset / matrix.clientWidth) * classes.length);
    const inside = (index) => Math.max(0, Math.min(classes.length - 1, index));
    return [inside(place(event.offsetY)), inside(place(event.offsetX))];
  }
  const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  matrix.addEventListener("pointermove", (event) => choose(...cellAt(event)));
  matrix.addEventListener("click", (event) => { choose(...cellAt(event)); list(chosen); });
  matrix.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && chosen) list(chosen);
    const step = ARROWS[event.key];
    if (!step) return;
    event.preventDefault();
    const [truth, predicted] = chosen || [0, 0], last = classes.length - 1;
    const move = (index, by) => Math.max(0, Math.min(last, index + by));
    choose(...(chosen ? [move(truth, step[0]), move(predicted, step[1])] : [0, 0]));
  });
  new ResizeObserver(drawMatrix).observe(matrix);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMatrix);

  /* The misclassified clips, and a player for the selected one. */
  const rows = document.getElementById("list"), stage = document.getElementById("stage");
  const filter = document.getElementById("filter");
  let player = null;
  function play(mistake, row) {
    if (player) player.destroy();
    for (const other of rows.children) other.setAttribute("aria-pressed", String(other === row));
    const title = element("h3", `${mistake.clip}: “${classes[mistake.truth]}”, taken for “${classes[mistake.predicted]}”`);
    const place = element("div");
    stage.replaceChildren(title, place);
    player = SgnPlayer.mount(place, scenes[mistake.scene]);
  }
  function list(cell) {
    const shown = cell
      ? mistakes.filter((item) => item.truth === cell[0] && item.predicted === cell[1])
      : mistakes;
    filter.hidden = !cell;
    filter.querySelector("span").textContent = cell
      ? `“${classes[cell[0]]}” taken for “${classes[cell[1]]}”: ${shown.length} listed.` : "";
    rows.replaceChildren(...shown.map((item) => {
      const row = element("button", "", { type: "button", "aria-pressed": "false" });
      const shares = `probability ${percent(item.probability)}, of the true class ${percent(item.truth_probability)}`;
      row.append(`${item.scene === null ? "" : "▶ "}${classes[item.truth]} → ${classes[item.predicted]}`,
        element("br"), element("small", `${item.clip}, ${shares}`));
      row.disabled = item.scene === null;
      row.addEventListener("click", () => play(item, row));
      return row;
    }));
  }
  filter.querySelector("button").addEventListener("click", () => list(null));
  list(null);
  const first = mistakes.findIndex((item) => item.scene !== null);
  if (first >= 0) play(mistakes[first], rows.children[first]);
})();
