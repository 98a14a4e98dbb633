// The table of processes: as a tree, or sorted by a measure.

function drawProcesses(section) {
  const { commands, pids, parents, starts_ns, ends_ns, wall_time_ns } = data.processes;
  const found = sums(rows, (row) => row.process);
  const items = commands.map((command, place) => ({
    place,
    command,
    lower: `${command.toLowerCase()} ${pids[place]}`,
    sum: found.get(place) || new Sum(),
    depth: 0,
  }));
  if (items.length === 0) {
    section.append(absent("No process was seen in this run."));
    return;
  }
  inTreeOrder(items, parents);
  const byProcess = new Map();
  for (const row of rows) {
    if (!byProcess.has(row.process)) byProcess.set(row.process, []);
    byProcess.get(row.process).push(row);
  }
  const end = ends_ns.reduce((last, end) => Math.max(last, end ?? 0), Math.max(wall_time_ns, 1));
  const name = {
    key: "tree",
    heading: "process",
    title: "in the order of parents and children",
    value: (process) => process.order,
    cell: (process) => {
      const depth = table && table.sort.key !== "tree" ? 0 : Math.min(process.depth, 8);
      return el("span", { class: `name depth-${depth}` }, shortened(process.command, 90, false));
    },
  };
  let table = null;
  const extra = [
    { key: "pid", heading: "pid", title: "sort by pid", number: true, value: (p) => pids[p.place], cell: (p) => String(pids[p.place]) },
    {
      key: "life",
      heading: "lifetime",
      title: "sort by start",
      value: (process) => starts_ns[process.place],
      cell: ({ place }) => lifetime(starts_ns[place], ends_ns[place], end),
    },
  ];
  const columns = (all) => columnsOf(name, items, all, extra);
  table = new Table({
    id: "process",
    label: "Processes",
    items,
    columns: columns(false),
    sort: { key: "tree", up: true },
    filterText: (process) => process.lower,
    more: allMeasures("process", (all) => table.setColumns(columns(all))),
    details: (process) => {
      const lines = [];
      for (const [path, sum] of sums(byProcess.get(process.place) || [], (row) => row.path)) {
        lines.push({ path, name: [swatch(data.paths[path]), data.paths[path]], sum });
      }
      lines.sort((a, b) => a.path - b.path);
      const start = starts_ns[process.place];
      const ended = ends_ns[process.place];
      return [
        el("p", { class: "full" }, el("code", {}, process.command)),
        el(
          "p",
          { class: "quiet" },
          `pid ${pids[process.place]}, from ${time(start)} to ${ended === null ? "after the tracing’s end" : time(ended)}`,
        ),
        lines.length > 0 ? sumTable("path", lines) : el("p", {}, "0: no work of its own."),
      ];
    },
  });
  section.append(table.element);
  const none = found.get(-1);
  if (none) {
    section.append(el("p", { class: "quiet" }, `Not in this table: work that no process of the run can be charged with (${summary(none)}).`));
  }
}

// Puts children after their parents, and notes how deep each is.
function inTreeOrder(items, parents) {
  const children = new Map();
  for (const item of items) {
    const parent = parents[item.place];
    if (!children.has(parent)) children.set(parent, []);
    children.get(parent).push(item);
  }
  let order = 0;
  const open = (children.get(null) || []).slice().reverse();
  while (open.length > 0) {
    const item = open.pop();
    if (item.order !== undefined) continue;
    item.order = order++;
    for (const child of (children.get(item.place) || []).slice().reverse()) {
      child.depth = item.depth + 1;
      open.push(child);
    }
  }
  // Those whose parents lead in a circle.
  for (const item of items) if (item.order === undefined) item.order = order++;
}

function lifetime(start, end, whole) {
  const from = (start / whole) * 100;
  const to = ((end === null ? whole : end) / whole) * 100;
  const words = `from ${time(start)} to ${end === null ? "after the tracing’s end" : time(end)}`;
  return svg(
    "svg",
    { class: "life", viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": words },
    svg("title", {}, words),
    svg("rect", { class: "track", x: 0, y: 4, width: 100, height: 2 }),
    svg("rect", { class: "bar", x: Math.min(from, 99), y: 1, width: Math.max(to - from, 1), height: 8 }),
  );
}
