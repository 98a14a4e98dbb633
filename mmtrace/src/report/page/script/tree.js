// A flame graph's frames. They are numbered so that those a frame called come right after it, the
// larger ones first.

class Tree {
  constructor(graph) {
    const number = graph.depths.length;
    this.number = number;
    this.unit = graph.unit;
    this.depths = graph.depths;
    this.names = graph.names;
    this.own = graph.own;
    this.places = graph.places;
    this.totals = Float64Array.from(graph.own);
    this.callers = new Int32Array(number).fill(-1);
    // The number after a frame's last one.
    this.ends = new Int32Array(number);
    const open = [];
    for (let i = 0; i < number; i++) {
      const depth = graph.depths[i];
      while (open.length > depth) this.ends[open.pop()] = i;
      if (depth > 0) this.callers[i] = open[depth - 1];
      open.push(i);
    }
    while (open.length > 0) this.ends[open.pop()] = number;
    for (let i = number - 1; i >= 0; i--) if (this.callers[i] >= 0) this.totals[this.callers[i]] += this.totals[i];
    this.total = 0;
    for (let i = 0; i < number; i = this.ends[i]) this.total += this.totals[i];
  }

  // As written, with what tells the kernel's functions and inlined ones.
  rawName(i) {
    return data.flames.strings[this.names[i]];
  }

  name(i) {
    return this.rawName(i).replace(/_\[[ki]\]$/, "");
  }

  place(i) {
    const place = this.places.length > 0 ? this.places[i] : 0;
    return place > 0 ? data.flames.strings[place - 1] : null;
  }

  // The path that a frame is on.
  root(i) {
    while (this.callers[i] >= 0) i = this.callers[i];
    return i;
  }

  firstCalled(i) {
    const first = i + 1;
    return first < this.number && this.depths[first] === (i < 0 ? 0 : this.depths[i] + 1) ? first : null;
  }

  next(i) {
    const next = this.ends[i];
    return next < this.number && this.callers[next] === this.callers[i] && this.depths[next] === this.depths[i] ? next : null;
  }

  previous(i) {
    let before = this.firstCalled(this.callers[i]);
    if (before === i) return null;
    while (this.ends[before] !== i) before = this.ends[before];
    return before;
  }

  // Which strings contain a text, and how much lies in frames with such names: no part twice.
  search(text) {
    const wanted = text.toLowerCase();
    const strings = data.flames.strings.map((string) => string.toLowerCase().includes(wanted));
    let sum = 0;
    let frames = 0;
    let inside = 0;
    for (let i = 0; i < this.number; i++) {
      if (!strings[this.names[i]]) continue;
      frames++;
      if (i >= inside) {
        sum += this.totals[i];
        inside = this.ends[i];
      }
    }
    return { strings, sum, frames };
  }
}
