"use strict";
const SgnPlayer = (() => {
  const ABSENT = -32768, PER_METER = 1000;
  const ROLES = { main: "main actor", second: "second actor", removed: "removed by denoising" };

  function element(tag, content = "", attributes = {}) {
    const made = document.createElement(tag);
    made.textContent = content;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  function decode(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Int16Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true));
  }

  /* The points [x, y, z] of one skeleton in one frame, in mm; null where a joint is not there. */
  function points(track, scene, frame) {
    const size = scene.num_coordinates, count = scene.joints.length;
    return Array.from({ length: count }, (_, joint) => {
      const at = (frame * count + joint) * size;
      if ((track.values[at] ?? ABSENT) === ABSENT) return null;
      return [track.values[at], track.values[at + 1], size > 2 ? track.values[at + 2] : 0];
    });
  }

  /* For each axis, the ends of nearly all that is seen in a panel from a frame on. */
  function extent(panel, scene, first) {
    const axes = [[], [], []];
    for (const track of panel.tracks) {
      for (let frame = first; frame < scene.num_frames; frame += 1) {
        for (const point of points(track, scene, frame)) {
          if (point) point.forEach((value, axis) => axes[axis].push(value));
        }
      }
    }
    return axes.map((values) => {
      values.sort((a, b) => a - b);
      const cut = Math.floor(values.length / 500);
      return [values[cut] ?? Infinity, values[values.length - 1 - cut] ?? -Infinity];
    });
  }

  class View {
    constructor(panel, scene, turn, onTurn) {
      this.panel = panel;
      this.scene = scene;
      this.turn = turn;
      this.ends = Array(3).fill([Infinity, -Infinity]);
      this.fit(0);
      this.canvas = element("canvas", "", { role: "img", "aria-label": `${panel.title} skeleton` });
      this.caption = element("figcaption", panel.title);
      this.figure = element("figure");
      this.figure.append(this.canvas, this.caption);
      this.canvas.addEventListener("pointerdown", (event) => {
        this.canvas.setPointerCapture(event.pointerId);
        this.held = [event.clientX, event.clientY];
        this.name(event.offsetX, event.offsetY);
      });
      this.canvas.addEventListener("pointermove", (event) => {
        if (this.held && scene.num_coordinates > 2) {
          turn.yaw += (event.clientX - this.held[0]) / 120;
          turn.pitch = Math.max(-1.5, Math.min(1.5, turn.pitch + (event.clientY - this.held[1]) / 120));
          this.held = [event.clientX, event.clientY];
          onTurn();
        }
        this.name(event.offsetX, event.offsetY);
      });
      for (const end of ["pointerup", "pointercancel"]) {
        this.canvas.addEventListener(end, () => { this.held = null; });
      }
    }

    /* Widen the view to what is seen from a frame on. */
    fit(first) {
      const seen = extent(this.panel, this.scene, first);
      this.ends = this.ends.map(([low, high], axis) => [Math.min(low, seen[axis][0]), Math.max(high, seen[axis][1])]);
      const known = this.ends.map((ends) => (ends[0] <= ends[1] ? ends : [0, 0]));
      this.middle = known.map(([low, high]) => (low + high) / 2);
      this.radius = Math.max(Math.hypot(...known.map(([low, high]) => (high - low) / 2)), 1);
    }

    project([x, y, z]) {
      const { yaw, pitch } = this.turn, [a, b, c] = this.middle;
      const side = (x - a) * Math.cos(yaw) + (z - c) * Math.sin(yaw);
      const depth = (z - c) * Math.cos(yaw) - (x - a) * Math.sin(yaw);
      const up = (y - b) * Math.cos(pitch) + depth * Math.sin(pitch);
      return [this.width / 2 + side * this.scale, this.height / 2 - up * this.scale];
    }

    draw(frame) {
      const ratio = window.devicePixelRatio || 1, style = getComputedStyle(this.canvas);
      this.width = this.canvas.clientWidth;
      this.height = this.canvas.clientHeight;
      this.scale = (0.48 * Math.min(this.width, this.height)) / this.radius;
      const [width, height] = [Math.round(this.width * ratio), Math.round(this.height * ratio)];
      if (this.canvas.width !== width || this.canvas.height !== height) {
        this.canvas.width = width;
        this.canvas.height = height;
      }
      const pen = this.canvas.getContext("2d");
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, this.width, this.height);
      this.shown = [];
      for (const track of this.panel.tracks) {
        const spots = points(track, this.scene, frame).map((point) => point && this.project(point));
        this.skeleton(pen, spots, style.getPropertyValue(`--${track.role}`));
        spots.forEach((spot, joint) => { if (spot) this.shown.push([spot, joint]); });
      }
    }

    skeleton(pen, spots, color) {
      pen.strokeStyle = pen.fillStyle = color;
      pen.lineWidth = 3;
      pen.lineCap = "round";
      pen.beginPath();
      for (const [child, parent] of this.scene.bones) {
        if (!spots[child] || !spots[parent]) continue;
        pen.moveTo(...spots[child]);
        pen.lineTo(...spots[parent]);
      }
      pen.stroke();
      for (const spot of spots) {
        if (!spot) continue;
        pen.beginPath();
        pen.arc(...spot, 4, 0, 2 * Math.PI);
        pen.fill();
      }
    }

    name(x, y) {
      const far = ([[a, b]]) => Math.hypot(a - x, b - y);
      const near = (this.shown || []).filter((item) => far(item) < 14);
      near.sort((one, other) => far(one) - far(other));
      const joint = near.length ? ` · ${this.scene.joints[near[0][1]]}` : "";
      this.caption.textContent = this.panel.title + joint;
    }
  }

  function legend(scene) {
    const list = element("ul", "", { class: "legend" });
    const roles = scene.panels.flatMap((panel) => panel.tracks.map((track) => track.role));
    if (new Set(roles).size > 1) {
      for (const role of Object.keys(ROLES).filter((name) => roles.includes(name))) {
        const item = element("li"), dot = element("i", "", { style: `--role: var(--${role})` });
        item.append(dot, ROLES[role]);
        list.append(item);
      }
    }
    return list;
  }

  /* Show a scene in an element, in place of what is there; returns what stops it, and, if it has no
     frames yet, what appends one. Then it is live: it does not start again, but waits for frames. */
  function mount(root, packed) {
    const live = packed.num_frames === 0;
    const scene = { ...packed, panels: packed.panels.map((panel) => ({
      ...panel, tracks: panel.tracks.map((track) => ({ ...track, values: live ? [] : decode(track.data) })),
    })) };
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    let frame = 0, playing = !still && scene.num_frames !== 1, last = null, ticket = 0;
    const turn = { yaw: 0, pitch: 0 };
    const views = scene.panels.map((panel) => new View(panel, scene, turn, () => show(frame)));
    const panels = element("div", "", { class: "panels" });
    panels.append(...views.map((view) => view.figure));
    const play = element("button", "", { type: "button" });
    const bar = element("input", "", {
      type: "range", min: 0, max: scene.num_frames - 1, step: 1, "aria-label": "frame",
    });
    const time = element("output"), speed = element("select", "", { "aria-label": "speed" });
    for (const factor of [0.25, 0.5, 1, 2]) {
      const option = element("option", `${factor}×`, { value: factor });
      option.selected = factor === 1;
      speed.append(option);
    }
    const controls = element("div", "", { class: "controls" });
    controls.append(play, bar, time, speed);
    root.replaceChildren(panels, controls, legend(scene));

    function show(next) {
      frame = live ? Math.max(0, Math.min(next, scene.num_frames - 1)) : (next + scene.num_frames) % scene.num_frames;
      const whole = Math.floor(frame);
      for (const view of views) view.draw(whole);
      bar.value = whole;
      time.textContent = `${(whole / scene.fps).toFixed(1)} of ${(scene.num_frames / scene.fps).toFixed(1)} s`;
      play.textContent = playing ? "pause" : "play";
    }
    function tick(now) {
      if (last !== null && playing) {
        const step = ((now - last) / 1000) * scene.fps * Number(speed.value);
        show(frame + step);
      }
      last = now;
      ticket = playing ? requestAnimationFrame(tick) : 0;
    }
    function run(on) {
      playing = on;
      last = null;
      cancelAnimationFrame(ticket);
      show(frame);
      if (on) ticket = requestAnimationFrame(tick);
    }
    play.addEventListener("click", () => run(!playing));
    bar.addEventListener("input", () => { frame = Number(bar.value); run(false); });
    root.onkeydown = (event) => {
      if (event.target === bar || event.target === speed || event.target === play) return;
      if (event.key === " ") run(!playing);
      else if (event.key === "ArrowRight") { run(false); show(Math.floor(frame) + 1); }
      else if (event.key === "ArrowLeft") { run(false); show(Math.floor(frame) - 1); }
      else return;
      event.preventDefault();
    };
    root.tabIndex = 0;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", `skeleton player: ${scene.title}`);
    const watcher = new ResizeObserver(() => show(frame));
    watcher.observe(panels);
    const dark = matchMedia("(prefers-color-scheme: dark)"), redraw = () => show(frame);
    dark.addEventListener("change", redraw);
    run(playing);
    /* A frame is a list of people, each a list of [x, y, z] in meters; anything else is absent. */
    function append(people) {
      const size = scene.num_coordinates;
      for (const view of views) {
        view.panel.tracks.forEach((track, person) => scene.joints.forEach((_, joint) => {
          const point = people[person]?.[joint];
          const known = Array.isArray(point) && point.length === size && point.every(Number.isFinite);
          track.values.push(...(known ? point.map((value) => value * PER_METER) : Array(size).fill(ABSENT)));
        }));
      }
      bar.max = scene.num_frames;
      scene.num_frames += 1;
      for (const view of views) view.fit(scene.num_frames - 1);
      if (!playing) show(frame);
    }
    function destroy() {
      run(false);
      watcher.disconnect();
      dark.removeEventListener("change", redraw);
      root.onkeydown = null;
      root.replaceChildren();
    }
    return { destroy, append };
  }

  return { mount, element };
})();
