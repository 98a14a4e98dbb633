// Which parts of a file were used when: the file from its beginning down, time to the right.

const HEAT_LEVELS = 6;
const HEAT_KINDS = [
  ["returned or written by calls", "returned"],
  ["faulted on", "faulted"],
  ["brought into the page cache", "cached"],
  ["read ahead into it, never used", "unused"],
];
const CACHED = 2;
const UNUSED = 3;

function heatMap(map) {
  if (!map) {
    const why = data.heat_maps.length > 0 ? "this file is not among those with the most bytes, or has no offsets" : "heat maps were not asked for in this run";
    return [absent(`No heat map: ${why}.`)];
  }
  const { cells, sums, width_bytes, width_ns } = map;
  const cellsOf = [];
  for (let i = 0; i < cells.length; i += 2 + sums) cellsOf.push(cells.slice(i, i + 2 + sums));
  let parts = 1;
  let stretches = 1;
  for (const [part, stretch] of cellsOf) {
    parts = Math.max(parts, part + 1);
    stretches = Math.max(stretches, stretch + 1);
  }
  const size = data.files.sizes[map.file];
  if (size !== null) parts = Math.max(parts, Math.min(Math.ceil(size / width_bytes), 4 * parts));
  const panels = HEAT_KINDS.map(([label, name], kind) =>
    kind < sums
      ? heatPanel({ label, name, kind, cellsOf, parts, stretches, width_bytes, width_ns })
      : el("figure", {}, el("figcaption", {}, el("strong", {}, label)), absent(`Not known: ${data.no_heat_unused}.`)),
  );
  return [
    el("h3", {}, "Which parts were used when"),
    el("div", { class: "heat" }, ...panels),
    el("p", { class: "quiet" }, `A cell is ${bytes(width_bytes)} of the file during ${time(width_ns)}.`),
  ];
}

function heatPanel({ label, name, kind, cellsOf, parts, stretches, width_bytes, width_ns }) {
  let most = 0;
  let total = 0;
  // What was not used of what was brought in is as dark as that.
  let darkest = 0;
  let whole = 0;
  const of = kind === UNUSED ? CACHED : kind;
  for (const cell of cellsOf) {
    most = Math.max(most, cell[2 + kind]);
    total += cell[2 + kind];
    darkest = Math.max(darkest, cell[2 + of]);
    whole += cell[2 + of];
  }
  const levels = new Array(HEAT_LEVELS).fill("");
  if (most > 0) {
    for (const cell of cellsOf) {
      const value = cell[2 + kind];
      if (value === 0) continue;
      const level = Math.max(0, Math.ceil(Math.sqrt(value / darkest) * HEAT_LEVELS) - 1);
      levels[level] += `M${cell[1]} ${cell[0]}h1v1h-1z`;
    }
  }
  const drawn = levels.map((d, level) => svg("path", { class: `heat-${name} level-${level + 1}`, d }));
  const more = kind === UNUSED ? `${percent(total, whole)} of what came in` : `at most ${bytes(most)} a cell`;
  const words = total === 0 ? "0" : `${bytes(total)} in all, ${more}`;
  return el(
    "figure",
    {},
    el("figcaption", {}, el("strong", {}, label), ` ${words}`),
    el(
      "div",
      { class: "map" },
      el("span", { class: "y" }, el("span", {}, "0"), el("span", {}, bytes(parts * width_bytes))),
      svg(
        "svg",
        {
          viewBox: `0 0 ${stretches} ${parts}`,
          preserveAspectRatio: "none",
          role: "img",
          "aria-label": `${label}: ${words}`,
        },
        ...drawn,
      ),
      el("span", { class: "x" }, el("span", {}, "0"), el("span", {}, time(stretches * width_ns))),
    ),
  );
}
