// The paths' work over time.

const CHART_HEIGHT = 220;
const AXIS = { left: 76, bottom: 24, top: 8, right: 12 };

// The smallest of 1, 2, 5, 10, 20 … (or powers of two, for bytes) that cuts `most` into at most
// `parts` pieces.
function step(most, parts, unit) {
  const least = most / parts;
  if (unit === "bytes") return 2 ** Math.max(0, Math.ceil(Math.log2(least)));
  const power = 10 ** Math.floor(Math.log10(least));
  const found = [1, 2, 5, 10].find((factor) => factor * power >= least) * power;
  return unit === "count" ? Math.max(1, found) : found;
}

// Neighbouring values added up, so that there are at most `most`.
function gathered(values, factor) {
  if (factor === 1) return values;
  const out = [];
  for (let i = 0; i < values.length; i += factor) {
    let sum = 0;
    for (let j = i; j < Math.min(i + factor, values.length); j++) sum += values[j];
    out.push(sum);
  }
  return out;
}

function drawTimeline(section) {
  const line = data.timeline;
  if (!line || line.stretches === 0) {
    section.append(absent("This recording has no timeline: when the work was done was not recorded."));
    return;
  }
  const byMeasure = new Map();
  for (const series of line.series) {
    if (!byMeasure.has(series.measure)) byMeasure.set(series.measure, []);
    byMeasure.get(series.measure).push(series);
  }
  const worked = (measure) => byMeasure.get(measure).some((series) => series.values.length > 0);
  const choices = data.telling.filter((measure) => byMeasure.has(measure));
  if (choices.length === 0) {
    section.append(absent("0: no work was done in this run."));
    return;
  }
  const select = el(
    "select",
    { id: "timeline-measure", on: { change: () => chart.show(Number(select.value)) } },
    ...choices.map((measure) =>
      el("option", { value: measure }, data.measures[measure].label + (worked(measure) ? "" : " (0)")),
    ),
  );
  const status = el("p", { class: "status", role: "status" });
  const holder = el("div", { class: "chart" });
  const legend = el("ul", { class: "legend", "aria-label": "Paths" });
  section.append(
    el("div", { class: "tools" }, el("label", { for: "timeline-measure" }, "Measure"), select, status),
    holder,
    legend,
  );
  const chart = new Chart(line, byMeasure, { holder, status, legend });
  const first = choices.find(worked) ?? choices[0];
  select.value = String(first);
  chart.show(first);
  new ResizeObserver(() => chart.draw()).observe(holder);
}

class Chart {
  constructor(line, byMeasure, parts) {
    Object.assign(this, { line, byMeasure, ...parts });
    this.cursor = null;
    this.width = 0;
  }

  show(measure) {
    this.measure = measure;
    this.width = 0;
    this.series = this.byMeasure.get(measure).filter((series) => series.values.length > 0);
    this.drawLegend();
    this.draw();
  }

  drawLegend() {
    const unit = data.measures[this.measure].unit;
    const items = this.series.map(({ path, values }) => {
      const total = values.reduce((sum, value) => sum + value, 0);
      return el("li", {}, swatch(data.paths[path]), `${data.paths[path]} ${amount(total, unit)}`);
    });
    const seen = new Set(rows.map((row) => row.path));
    const unknown = data.paths.filter((_, path) => seen.has(path) && !known[path].has(this.measure));
    if (items.length === 0) items.push(el("li", {}, "0 all the time"));
    if (unknown.length > 0) items.push(el("li", { class: "quiet" }, `not measured: ${unknown.join(", ")}`));
    this.legend.replaceChildren(...items);
  }

  draw() {
    const width = Math.max(280, Math.floor(this.holder.clientWidth));
    if (width === this.width) return;
    this.width = width;
    const { unit, label } = data.measures[this.measure];
    const { stretches, width_ns } = this.line;
    const plot = width - AXIS.left - AXIS.right;
    const factor = Math.max(1, Math.ceil(stretches / Math.max(1, Math.floor(plot / 2))));
    this.factor = factor;
    this.columns = this.series.map(({ path, values }) => ({ path, values: gathered(values, factor) }));
    const number = Math.ceil(stretches / factor);
    const sums = new Array(number).fill(0);
    for (const { values } of this.columns) values.forEach((value, i) => (sums[i] += value));
    this.sums = sums;
    this.cursor = null;
    const most = Math.max(1, ...sums);
    const height = CHART_HEIGHT - AXIS.top - AXIS.bottom;
    this.x = (column) => AXIS.left + (column / number) * plot;
    const y = (value) => AXIS.top + height * (1 - value / most);

    const parts = [];
    const tick = step(most, 4, unit);
    for (let value = 0; value <= most; value += tick) {
      const at = Math.round(y(value)) + 0.5;
      parts.push(svg("line", { class: "grid", x1: AXIS.left, x2: width - AXIS.right, y1: at, y2: at }));
      parts.push(svg("text", { class: "tick", x: AXIS.left - 6, y: at + 4, "text-anchor": "end" }, amount(value, unit)));
    }
    const below = new Array(number).fill(0);
    for (const { path, values } of this.columns) {
      parts.push(svg("path", { class: `area f-${data.paths[path]}`, d: this.area(values, below, y) }));
      values.forEach((value, i) => (below[i] += value));
    }
    const whole = stretches * width_ns;
    const ticks = step(whole, Math.max(2, Math.floor(plot / 110)), "ns");
    for (let at = 0; at <= whole; at += ticks) {
      const x = AXIS.left + (at / whole) * plot;
      const anchor = at === 0 ? "start" : x > width - 50 ? "end" : "middle";
      parts.push(svg("line", { class: "grid", x1: x, x2: x, y1: AXIS.top + height, y2: AXIS.top + height + 4 }));
      parts.push(svg("text", { class: "tick", x, y: CHART_HEIGHT - 6, "text-anchor": anchor }, amount(at, "ns")));
    }
    this.mark = svg("rect", { class: "cursor", x: 0, y: AXIS.top, width: 0, height });
    parts.push(this.mark);
    const total = sums.reduce((sum, value) => sum + value, 0);
    this.rest = `${label} each ${time(factor * width_ns)}`;
    this.status.textContent = this.rest;
    this.holder.replaceChildren(
      svg(
        "svg",
        {
          viewBox: `0 0 ${width} ${CHART_HEIGHT}`,
          role: "img",
          tabindex: "0",
          "aria-label": `${label} over time: ${amount(total, unit)} in all, at most ${amount(Math.max(0, ...sums), unit)} each ${time(factor * width_ns)}. Arrow keys read single values.`,
          on: {
            pointermove: (event) => {
              const box = event.currentTarget.getBoundingClientRect();
              const x = ((event.clientX - box.left) / box.width) * width;
              this.point(Math.floor(((x - AXIS.left) / plot) * number));
            },
            pointerleave: () => this.point(null),
            keydown: (event) => {
              const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
              if (!by) return;
              event.preventDefault();
              this.point(this.cursor === null ? 0 : this.cursor + by);
            },
          },
        },
        ...parts,
      ),
    );
  }

  // The outline of values on top of others, as steps.
  area(values, below, y) {
    let top = "";
    let back = "";
    const place = (value) => value.toFixed(1);
    for (let i = 0; i < values.length; ) {
      let end = i + 1;
      while (end < values.length && values[end] === values[i] && below[end] === below[i]) end++;
      const [from, to] = [place(this.x(i)), place(this.x(end))];
      top += `${top ? "L" : "M"}${from} ${place(y(below[i] + values[i]))}H${to}`;
      back = `L${to} ${place(y(below[i]))}H${from}` + back;
      i = end;
    }
    return `${top}${back}Z`;
  }

  point(column) {
    if (column === null || column < 0 || column >= this.sums.length) {
      if (column === null) {
        this.cursor = null;
        this.mark.setAttribute("width", 0);
        this.status.textContent = this.rest;
      }
      return;
    }
    this.cursor = column;
    this.mark.setAttribute("x", this.x(column));
    this.mark.setAttribute("width", Math.max(1, this.x(column + 1) - this.x(column)));
    const { unit } = data.measures[this.measure];
    const width = this.factor * this.line.width_ns;
    const parts = this.columns
      .filter(({ values }) => values[column] > 0)
      .map(({ path, values }) => `${data.paths[path]} ${amount(values[column], unit)}`);
    this.status.textContent = `from ${time(column * width)} to ${time((column + 1) * width)}: ${parts.join(", ") || "0"}`;
  }
}
