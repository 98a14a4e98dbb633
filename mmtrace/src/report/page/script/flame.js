// Flame graphs, on a canvas: callers above, what they called below. Only what is at least half a
// pixel wide is drawn, so that many stacks cost no more than few.

const FRAME_HEIGHT = 19;
const LEAST_WIDTH = 0.5;

function drawFlames(section) {
  // Then the page says so already.
  if (!data.flames.asked) return;
  const graphs = data.flames.graphs;
  if (graphs.every((graph) => graph.depths.length === 0)) {
    section.append(
      el(
        "ul",
        { class: "reasons" },
        ...graphs.map((graph) => el("li", {}, el("strong", {}, graph.name), `: ${graph.absent}`)),
      ),
    );
    return;
  }
  const flame = new Flame();
  const buttons = graphs.map((graph) =>
    el(
      "button",
      { type: "button", title: graph.label, on: { click: () => choose(graph) } },
      graph.name,
    ),
  );
  function choose(graph) {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(graphs[i] === graph)));
    flame.show(graph);
  }
  section.append(el("div", { class: "choices", role: "group", "aria-label": "Flame graph of" }, ...buttons), flame.element);
  choose(graphs.find((graph) => graph.depths.length > 0));
  flame.watch();
}

class Flame {
  constructor() {
    this.trees = new Map();
    this.canvas = el("canvas", {
      tabindex: "0",
      role: "application",
      "aria-label":
        "Flame graph. Arrow keys go from frame to frame: down to what was called, up to the caller. Enter enlarges, Escape goes back.",
      on: {
        pointermove: (event) => this.point(this.at(event)),
        pointerleave: () => this.point(null),
        click: (event) => {
          const frame = this.at(event);
          if (frame !== null) this.zoom(frame);
        },
        keydown: (event) => this.key(event),
        focus: () => this.mark(this.cursor ?? this.tree?.firstCalled(-1) ?? null),
        blur: () => this.draw(),
      },
    });
    this.status = el("p", { class: "status", role: "status" });
    this.matches = el("p", { class: "status matches", role: "status" });
    this.back = el("button", { type: "button", on: { click: () => this.zoom(null) } }, "whole graph");
    this.input = el("input", {
      type: "search",
      id: "flame-search",
      placeholder: "part of a function’s name",
      autocomplete: "off",
      spellcheck: "false",
      on: { input: () => this.search() },
    });
    this.holder = el("div", { class: "flame" }, this.canvas);
    this.absent = absent("");
    this.drawing = el(
      "div",
      {},
      el("div", { class: "tools" }, el("label", { for: "flame-search" }, "Search"), this.input, this.back, this.matches),
      this.status,
      this.holder,
      el(
        "p",
        { class: "quiet" },
        "Width is the amount; the order has no meaning. At the top the path, below it what called what. ",
        el("span", { class: "key user" }, "program"),
        el("span", { class: "key kernel" }, "kernel"),
        el("span", { class: "key inlined" }, "inlined"),
        el("span", { class: "key unknown" }, "no name"),
        el("span", { class: "key found" }, "found"),
      ),
    );
    this.element = el("div", {}, this.drawing, this.absent);
  }

  show(graph) {
    const has = graph.depths.length > 0;
    this.drawing.hidden = !has;
    this.absent.hidden = has;
    this.absent.textContent = `${graph.name}: ${graph.absent}`;
    this.tree = null;
    if (!has) return;
    if (!this.trees.has(graph)) this.trees.set(graph, new Tree(graph));
    this.tree = this.trees.get(graph);
    this.graph = graph;
    this.cursor = null;
    this.hovered = null;
    this.top = null;
    this.search();
    this.zoom(null);
  }

  // Draws again when the width, the colours or the medium change.
  watch() {
    new ResizeObserver(() => this.draw()).observe(this.holder);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    addEventListener("beforeprint", () => this.draw());
    matchMedia("print").addEventListener("change", () => this.draw());
  }

  search() {
    const text = this.input.value.trim();
    this.found = text && this.tree ? this.tree.search(text) : null;
    this.matches.textContent = this.found
      ? `${amount(this.found.sum, this.tree.unit)}, ${percent(this.found.sum, this.tree.total)}, in ${counted(this.found.frames, "frame", "frames")}`
      : "";
    this.draw();
  }

  zoom(frame) {
    this.top = frame;
    this.back.disabled = frame === null;
    this.tell(frame);
    this.draw();
  }

  key(event) {
    const { tree } = this;
    if (!tree) return;
    const at = this.cursor ?? 0;
    let to = null;
    if (event.key === "ArrowDown") to = this.cursor === null ? 0 : tree.firstCalled(at);
    else if (event.key === "ArrowUp") to = tree.callers[at] >= 0 ? tree.callers[at] : null;
    else if (event.key === "ArrowRight") to = tree.next(at);
    else if (event.key === "ArrowLeft") to = tree.previous(at);
    else if (event.key === "Enter" || event.key === " ") this.zoom(at);
    else if (event.key === "Escape") this.zoom(null);
    else return;
    event.preventDefault();
    if (to !== null) this.mark(to);
  }

  // Moves the keyboard's cursor, and the graph so far up that it is on it.
  mark(frame) {
    if (frame === null) return;
    this.cursor = frame;
    const inside = this.top === null || (frame >= this.top && frame < this.tree.ends[this.top]) || this.isCaller(frame);
    if (!inside) this.top = this.tree.callers[frame] >= 0 ? this.tree.callers[frame] : null;
    this.tell(frame);
    this.draw();
  }

  isCaller(frame) {
    return frame <= this.top && this.tree.ends[frame] > this.top;
  }

  point(frame) {
    if (frame === this.hovered) return;
    this.hovered = frame;
    this.canvas.classList.toggle("over", frame !== null);
    this.tell(frame ?? this.top);
    this.draw();
  }

  tell(frame) {
    const { tree } = this;
    if (frame === null) {
      this.status.textContent = `${this.graph.label}: ${amount(tree.total, tree.unit)}`;
      return;
    }
    const raw = tree.rawName(frame);
    const kind = { kernel: " (kernel)", inlined: " (inlined)" }[this.kind(raw)] ?? "";
    const place = tree.place(frame);
    const own = tree.own[frame] > 0 ? `, itself ${amount(tree.own[frame], tree.unit)}` : "";
    this.status.textContent = `${shortened(tree.name(frame), 300, false)}${kind}${place ? `, ${place}` : ""}: ${amount(tree.totals[frame], tree.unit)}, ${percent(tree.totals[frame], tree.total)}${own}`;
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    const row = Math.floor((event.clientY - box.top) / FRAME_HEIGHT);
    const found = (this.boxes[row] || []).find((drawn) => x >= drawn.x && x < drawn.x + drawn.width);
    return found ? found.frame : null;
  }

  // What a function is, by its name as written.
  kind(raw) {
    if (raw.endsWith("_[k]")) return "kernel";
    if (raw.endsWith("_[i]")) return "inlined";
    return raw.startsWith("[") ? "unknown" : "user";
  }

  // Where each frame is that is wide enough, row by row.
  lay(width) {
    const { tree } = this;
    const boxes = [];
    const put = (row, box) => (boxes[row] ||= []).push(box);
    const callers = [];
    for (let i = this.top === null ? -1 : tree.callers[this.top]; i >= 0; i = tree.callers[i]) callers.unshift(i);
    callers.forEach((frame, row) => put(row, { frame, x: 0, width, caller: true }));
    const all = this.top === null ? tree.total : tree.totals[this.top];
    const scale = width / all;
    const open = [];
    const enter = (first, end, row, left) => {
      let x = left;
      for (let i = first; i < end; i = tree.ends[i]) {
        const wide = tree.totals[i] * scale;
        // The others are no wider.
        if (wide < LEAST_WIDTH) break;
        put(row, { frame: i, x, width: wide });
        if (tree.ends[i] > i + 1) open.push([i + 1, tree.ends[i], row + 1, x]);
        x += wide;
      }
    };
    if (this.top === null) enter(0, tree.number, 0, 0);
    else enter(this.top, tree.ends[this.top], callers.length, 0);
    while (open.length > 0) enter(...open.pop());
    return boxes;
  }

  draw() {
    const width = this.holder.clientWidth;
    if (!this.tree || width === 0) return;
    this.boxes = this.lay(width);
    const height = this.boxes.length * FRAME_HEIGHT + 1;
    const sharp = Math.max(1, devicePixelRatio || 1);
    this.canvas.width = Math.round(width * sharp);
    this.canvas.height = Math.round(height * sharp);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    const pen = this.canvas.getContext("2d");
    pen.scale(sharp, sharp);
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    pen.textBaseline = "middle";
    const ink = new Map();
    const colorOf = (name) => {
      if (!ink.has(name)) ink.set(name, color(name));
      return ink.get(name);
    };
    this.boxes.forEach((row, index) => {
      for (const box of row) this.drawBox(pen, box, index * FRAME_HEIGHT, colorOf);
    });
  }

  drawBox(pen, { frame, x, width, caller }, y, colorOf) {
    const { tree } = this;
    const raw = tree.rawName(frame);
    const found = this.found && this.found.strings[tree.names[frame]];
    let fill = `--flame-${this.kind(raw)}`;
    if (tree.depths[frame] === 0) fill = `--path-${raw}`;
    if (found) fill = "--flame-found";
    pen.globalAlpha = caller || (this.found && !found) ? 0.45 : 1;
    pen.fillStyle = colorOf(fill);
    const gap = width > 2 ? 1 : 0;
    pen.fillRect(x, y + 1, width - gap, FRAME_HEIGHT - 1);
    pen.globalAlpha = 1;
    const marked = frame === this.hovered || (frame === this.cursor && document.activeElement === this.canvas);
    if (marked) {
      pen.strokeStyle = colorOf("--text");
      pen.lineWidth = 2;
      pen.strokeRect(x + 1, y + 2, Math.max(1, width - gap - 2), FRAME_HEIGHT - 3);
    }
    if (width > 24) {
      const text = fitted(pen, tree.name(frame), width - 8);
      const onPath = tree.depths[frame] === 0 && !found && !caller;
      pen.fillStyle = colorOf(onPath ? "--on-path" : found ? "--on-found" : "--text");
      pen.fillText(text, x + 4, y + FRAME_HEIGHT / 2 + 1);
    }
  }
}

// As much of a text as fits.
function fitted(pen, text, width) {
  const short = text.length > 400 ? text.slice(0, 400) : text;
  if (short === text && pen.measureText(text).width <= width) return text;
  let low = 0;
  let high = short.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (pen.measureText(short.slice(0, middle) + "…").width <= width) low = middle;
    else high = middle - 1;
  }
  return low < 2 ? "" : short.slice(0, low) + "…";
}
