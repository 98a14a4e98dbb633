for (const [id, draw] of [
  ["timeline", drawTimeline],
  ["files", drawFiles],
  ["processes", drawProcesses],
  ["flames", drawFlames],
]) {
  draw(document.getElementById(id));
}
