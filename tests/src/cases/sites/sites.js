// Reads the beginning of a file from three places, as the workload `sites` does.
const fs = require("fs");

const fd = fs.openSync(process.argv[2]);
const buffer = Buffer.alloc(4096);

function siteSmall() {
  return fs.readSync(fd, buffer, 0, 1009, 0);
}

function siteLarge() {
  return fs.readSync(fd, buffer, 0, 4001, 0);
}

function siteMiddle() {
  return fs.readSync(fd, buffer, 0, 2003, 0);
}

const sums = [0, 0, 0];
let state = 1;
for (let call = 0; call < Number(process.argv[3]); call++) {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  const digit = (state >>> 16) % 10;
  if (digit < 5) sums[0] += siteSmall();
  else if (digit < 8) sums[1] += siteLarge();
  else sums[2] += siteMiddle();
}
console.log(sums.join(" "));
