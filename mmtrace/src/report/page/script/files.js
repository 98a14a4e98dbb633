// The table of files.

const narrow = matchMedia("(max-width: 640px)");
const middling = matchMedia("(max-width: 1080px)");

// What a row cost: the most telling measure first.
function cost(sum) {
  return data.telling.map((measure) => sum.get(measure) || 0);
}

function byCost(a, b) {
  for (let i = 0; i < a.cost.length; i++) if (a.cost[i] !== b.cost[i]) return b.cost[i] - a.cost[i];
  return a.place - b.place;
}

function measureOf(label) {
  return data.measures.findIndex((measure) => measure.label === label);
}

const DISK_BYTES = measureOf("disk read bytes");

// Disk bytes for each byte that the program got; null if that is not known, and if nothing was read.
function amplification(file) {
  const disk = file.sum.get(DISK_BYTES);
  if (!disk || file.sum.isBound(DISK_BYTES) || file.useful === null) return null;
  return disk / file.useful;
}

function amplificationText(file) {
  const times = amplification(file);
  if (times === null) return "–";
  if (times === Infinity) return "none used";
  const digits = times < 10 ? 2 : times < 100 ? 1 : 0;
  return `${file.mapped ? "≥" : ""}${count(Math.floor(times))}${digits ? (times % 1).toFixed(digits).slice(1) : ""}×`;
}

// The key of the most telling measure that is not 0 everywhere.
function largestFirst(items) {
  const measure = data.telling.find((measure) => items.some((item) => item.sum.get(measure) > 0));
  return measure === undefined ? "name" : `m${measure}`;
}

function columnsOf(name, items, all, extra) {
  const most = all ? Infinity : narrow.matches ? 2 : middling.matches ? 4 : 6;
  const measures = worthShowing(items.map((item) => item.sum), most);
  return [name, ...(narrow.matches && !all ? [] : extra), ...measures.map(measureColumn)];
}

// The columns' check box: the most telling measures, or all.
function allMeasures(id, change) {
  const box = el("input", { type: "checkbox", id: `${id}-all`, on: { change: () => change(box.checked) } });
  for (const width of [narrow, middling]) width.addEventListener("change", () => change(box.checked));
  return [box, el("label", { for: `${id}-all` }, "all measures")];
}

function drawFiles(section) {
  const { names, devices, inodes, sizes, file_systems, useful, mapped } = data.files;
  const found = sums(rows, (row) => row.file);
  const none = found.get(-1);
  const items = names.map((name, place) => {
    const sum = found.get(place) || new Sum();
    return { place, name, sum, useful: useful[place], mapped: mapped[place], cost: cost(sum), lower: name.toLowerCase() };
  });
  if (items.length === 0) {
    section.append(absent("No file took part in this run."));
    return;
  }
  items.sort(byCost);
  const byFile = new Map();
  for (const row of rows) {
    if (!byFile.has(row.file)) byFile.set(row.file, []);
    byFile.get(row.file).push(row);
  }
  const maps = new Map(data.heat_maps.map((map) => [map.file, map]));
  const name = {
    key: "name",
    heading: "file",
    title: "sort by name",
    value: (file) => file.name,
    cell: (file) =>
      el(
        "span",
        { class: "name file", title: file.name.length > 90 ? shortened(file.name, 1000, true) : null },
        shortened(file.name, 90, true),
      ),
  };
  const extra = [
    {
      key: "amplification",
      heading: "disk / useful",
      title: "sort by bytes read from disk for each byte that the program got",
      number: true,
      value: amplification,
      cell: amplificationText,
      whyNull: "nothing was read from disk, or it is not known what the program got",
    },
  ];
  const columns = (all) => columnsOf(name, items, all, extra);
  const table = new Table({
    id: "file",
    label: "Files",
    items,
    columns: columns(false),
    sort: { key: largestFirst(items), up: false },
    filterText: (file) => file.lower,
    more: allMeasures("file", (all) => table.setColumns(columns(all))),
    details: (file) => {
      const { place } = file;
      const size = sizes[place] === null ? "size not known" : `${count(sizes[place])} bytes`;
      const kind = file_systems[place] || "file system not known";
      const lines = [];
      for (const [path, sum] of sums(byFile.get(place) || [], (row) => row.path)) {
        lines.push({ path, name: [swatch(data.paths[path]), data.paths[path]], sum });
      }
      lines.sort((a, b) => a.path - b.path);
      const processes = sums(byFile.get(place) || [], (row) => row.process).size;
      return [
        el("p", { class: "full" }, el("code", {}, shortened(file.name, 6000, true))),
        el(
          "p",
          { class: "quiet" },
          `${size}, ${kind}, device ${devices[place]}, inode ${inodes[place]}, used by ${counted(processes, "process", "processes")}`,
        ),
        sumTable("path", lines),
        ...heatMap(maps.get(place)),
      ];
    },
  });
  section.append(table.element);
  if (none) {
    section.append(
      el("p", { class: "quiet" }, `Not in this table: work on no file, such as faults on the program’s own memory (${summary(none)}).`),
    );
  }
}

// The most telling measures of a sum, in words.
function summary(sum) {
  const parts = data.telling.filter((measure) => sum.get(measure) > 0).slice(0, 4);
  if (parts.length === 0) return "0";
  return parts.map((measure) => `${data.measures[measure].label} ${sum.text(measure)}`).join(", ");
}
