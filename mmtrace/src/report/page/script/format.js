// Numbers as mmtrace's tables show them.

function count(value) {
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, ",");
}

function bytes(value) {
  if (value < 10240) return count(value) + " B";
  let size = value;
  for (const unit of ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]) {
    size /= 1024;
    const tenths = Math.floor(size * 10 + 0.5);
    if (tenths < 10240 || unit === "EiB") return `${Math.floor(tenths / 10)}.${tenths % 10} ${unit}`;
  }
}

function time(value) {
  if (value < 1000) return `${Math.round(value)} ns`;
  const [scale, unit] = value < 999500 ? [1e3, "us"] : value < 999500000 ? [1e6, "ms"] : [1e9, "s"];
  const hundredths = Math.floor((value * 100) / scale + 0.5);
  const tenths = Math.floor((value * 10) / scale + 0.5);
  if (hundredths < 1000) return `${(hundredths / 100).toFixed(2)} ${unit}`;
  if (tenths < 1000) return `${(tenths / 10).toFixed(1)} ${unit}`;
  return `${count(Math.floor(value / scale + 0.5))} ${unit}`;
}

function amount(value, unit) {
  if (value === 0) return "0";
  return unit === "bytes" ? bytes(value) : unit === "ns" ? time(value) : count(value);
}

// A share that is neither none nor all never shows as one of these.
function percent(part, whole) {
  if (whole === 0) return "0 %";
  if (part === whole) return "100 %";
  const permille = Math.floor((part * 1000) / whole + 0.5);
  if (permille === 0 && part > 0) return "<0.1 %";
  if (permille >= 1000 && part < whole) return ">99.9 %";
  return `${Math.floor(permille / 10)}.${permille % 10} %`;
}

function counted(value, one, many) {
  return `${count(value)} ${value === 1 ? one : many}`;
}
