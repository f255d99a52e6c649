// The timeline: pieces and bins become rectangles for the part of the run that is seen. What is narrower than a pixel is drawn as a share of the time.

const STACK = ["run", "poll", "woken", "wait", "yield", "pause", "suspend"]; // from below; nothing is drawn for blocked time
const HEIGHTS = { run: 1, poll: 1, wait: 0.66, woken: 0.66, yield: 0.66, pause: 0.4, suspend: 0.4, sleep: 0.12, offline: 0.12 };
const CELL = 2; // px: width of a share
const LANE = 34, GAP = 7;

/** A run's lanes from above: vCPUs, then physical CPUs, each with its pieces in order. */
function lanesOf(run) {
  const lanes = [];
  for (let one = 0; one < run.vcpus; one++) lanes.push({ kind: "vcpu", index: one, name: `vCPU ${one}`, pieces: [] });
  for (let one = 0; one < run.pcpus; one++) lanes.push({ kind: "pcpu", index: one, name: `pCPU ${one}`, pieces: [] });
  const { thread, state, pcpu, start } = run.pieces;
  for (let piece = 0; piece < thread.length; piece++) {
    if (thread[piece] < run.vcpus) lanes[thread[piece]].pieces.push(piece);
    if (state[piece] < 2 && pcpu[piece] !== null && pcpu[piece] < run.pcpus) lanes[run.vcpus + pcpu[piece]].pieces.push(piece);
  }
  lanes.forEach((lane, row) => {
    lane.pieces.sort((a, b) => start[a] - start[b]);
    lane.y = row * (LANE + GAP) + (lane.kind === "pcpu" ? 12 : 0);
    lane.height = LANE;
    lane.bins = binsOf(run, lane);
  });
  return lanes;
}

/** A lane's shares: {key: bytes}. */
function binsOf(run, lane) {
  const found = run.bins[lane.kind === "vcpu" ? "vcpus" : "pcpus"][lane.index];
  if (!found) return null;
  return Object.fromEntries(Object.entries(found).map(([key, text]) => [key, Uint8Array.from(atob(text), (one) => one.charCodeAt(0))]));
}

/** Index of the first piece that ends after a time. */
function firstAfter(run, lane, at) {
  const { start, length } = run.pieces;
  let low = 0, high = lane.pieces.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const piece = lane.pieces[middle];
    if (start[piece] + length[piece] <= at) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** What a lane colours by: the state on a vCPU's, the thread on a physical CPU's. */
function keyOf(run, lane, piece) {
  return lane.kind === "vcpu" ? run.states[run.pieces.state[piece]] : String(run.pieces.thread[piece]);
}

function fillOf(run, lane, key, colors) {
  if (lane.kind === "vcpu") return colors.states[key];
  return Number(key) < run.vcpus ? colors.threads[Number(key) % colors.threads.length] : colors.stranger;
}

/** Rectangles of every lane between two times, `width` px wide, the names that fit into them, and the shares under them as paths. */
function itemsOf(run, lanes, [from, to], width, colors) {
  const items = [], names = [], shares = [];
  const perPixel = (to - from) / width;
  for (const lane of lanes) {
    const order = lane.kind === "vcpu" ? STACK : run.threads.map((_, index) => String(index));
    const cells = new Shares(order, from, perPixel * CELL, Math.ceil(width / CELL));
    if (lane.bins) takeBins(run, lane, cells, from, to);
    const { start, length } = run.pieces;
    for (let index = firstAfter(run, lane, from); index < lane.pieces.length; index++) {
      const piece = lane.pieces[index];
      if (start[piece] >= to) break;
      const key = keyOf(run, lane, piece);
      if (length[piece] >= 1.5 * perPixel) {
        if (!lane.bins) cells.addEnds(key, start[piece], start[piece] + length[piece]);
        const height = lane.kind === "vcpu" ? HEIGHTS[key] * lane.height : lane.height;
        const item = { kind: "piece", piece, from: start[piece], to: start[piece] + length[piece], y: lane.y + lane.height - height, y2: lane.y + lane.height, fill: fillOf(run, lane, key, colors) };
        if (height < lane.height) items.push({ ...item, y: lane.y, fill: colors.lane }); // no share shows above it
        items.push(item);
        const seen = Math.min(item.to, to) - Math.max(item.from, from);
        if (lane.kind === "pcpu" && seen > 48 * perPixel) names.push({ at: Math.max(item.from, from) + seen / 2, y: lane.y + lane.height / 2, text: run.threads[Number(key)], limit: seen / perPixel - 6 });
      } else if (!lane.bins) cells.add(key, start[piece], start[piece] + length[piece]);
    }
    shares.push(...cells.paths(lane, (key) => fillOf(run, lane, key, colors)));
  }
  return { items, names, shares };
}

/** A lane's bins add up in cells, or fill several. */
function takeBins(run, lane, cells, from, to) {
  const ns = run.bins.ns;
  const first = Math.max(0, Math.floor((from - run.begin) / ns));
  const last = Math.ceil((to - run.begin) / ns);
  for (const [key, shares] of Object.entries(lane.bins)) {
    for (let bin = first; bin < Math.min(last, shares.length); bin++) {
      if (shares[bin]) cells.add(key, run.begin + bin * ns, run.begin + (bin + 1) * ns, shares[bin] / 255);
    }
  }
}

/** Shares of time by key, in cells of equal length. */
class Shares {
  constructor(order, from, cell, count) {
    Object.assign(this, { order, from, cell, count, taken: new Map() });
  }

  add(key, start, end, weight = 1) {
    if (!this.order.includes(key)) return;
    let row = this.taken.get(key);
    if (!row) this.taken.set(key, (row = new Float64Array(this.count)));
    const low = Math.max(start, this.from), high = Math.min(end, this.from + this.cell * this.count);
    for (let index = Math.floor((low - this.from) / this.cell); index < this.count && this.from + index * this.cell < high; index++) {
      const edge = this.from + index * this.cell;
      row[index] += Math.max(0, Math.min(high, edge + this.cell) - Math.max(low, edge)) * weight;
    }
  }

  /** The first and the last cell of a piece that is drawn for itself, so that the shares beside it are whole. */
  addEnds(key, start, end) {
    const first = this.from + Math.ceil((start - this.from) / this.cell) * this.cell;
    const last = this.from + Math.floor((end - this.from) / this.cell) * this.cell;
    if (first > last) this.add(key, start, end);
    else {
      if (first > start) this.add(key, start, first);
      if (last < end) this.add(key, last, end);
    }
  }

  /** One path for each key: a thousand rectangles that are one mark. Shares stand on each other; one that is not 0 is at least a pixel high. */
  paths(lane, fill) {
    const tops = new Float64Array(this.count).fill(lane.y + lane.height);
    return this.order.filter((key) => this.taken.has(key)).map((key) => {
      const row = this.taken.get(key);
      let path = "", begin = 0, low = 0, high = 0;
      for (let index = 0; index <= this.count; index++) {
        const share = index < this.count ? row[index] / this.cell : 0;
        const bottom = index < this.count ? tops[index] : 0;
        const top = share > 0 ? Math.max(lane.y, bottom - Math.max(1, Math.round(Math.min(share, 1) * lane.height * 2) / 2)) : bottom;
        if (top !== high || bottom !== low || index === this.count) {
          if (low > high) path += `M${begin * CELL} ${low}H${index * CELL}V${high}H${begin * CELL}Z`;
          [begin, low, high] = [index, bottom, top];
        }
        if (index < this.count) tops[index] = top;
      }
      return { kind: "share", lane, cells: this, path, fill: fill(key) };
    });
  }

  /** [key, share] of the time around `at`, most first. */
  at(at) {
    const index = Math.max(0, Math.min(this.count - 1, Math.floor((at - this.from) / this.cell)));
    const found = [...this.taken].map(([key, row]) => [key, row[index] / this.cell]).filter(([, share]) => share > 0);
    return found.sort((a, b) => b[1] - a[1]);
  }
}

/** Lines about a piece, a share, or a mark; `at` is the time under the pointer. */
function describe(run, datum, at) {
  if (datum.kind === "piece") return describePiece(run, datum.piece);
  if (datum.kind === "share") {
    const { lane, cells } = datum;
    const step = Math.max(run.bins.ns, cells.cell), origin = run.bins.ns > cells.cell ? run.begin : cells.from;
    const begin = origin + Math.floor((at - origin) / step) * step;
    return [
      `${lane.name}: merged intervals`, `${duration(Math.round(begin))} to ${duration(Math.round(begin + step))}`,
      ...cells.at(at).map(([key, share]) => `${lane.kind === "vcpu" ? WORDS[key] : run.threads[Number(key)]} ${(100 * share).toFixed(share < 0.01 ? 2 : 0)} %`),
    ];
  }
  if (datum.title) return [datum.title, `${duration(datum.at)}${datum.vcpu === null ? "" : `, vCPU ${datum.vcpu}`}, position ${datum.position}`, ...datum.lines];
  return null;
}

function describePiece(run, piece) {
  const { thread, state, pcpu, start, length, position, reason, reasons, blame } = run.pieces;
  const why = reasons[reason[piece]];
  const lines = [
    `${run.threads[thread[piece]]} ${WORDS[run.states[state[piece]]]} for ${duration(length[piece])}`,
    `${duration(start[piece])} to ${duration(start[piece] + length[piece])}${pcpu[piece] === null ? "" : `, pCPU ${pcpu[piece]}`}`,
    `position ${typeof position[piece] === "number" ? position[piece].toLocaleString("en-US") : position[piece]}${why ? `, reason ${why}` : ""}`,
  ];
  if (blame[piece].length) lines.push(`waits for ${blame[piece].map(([who, ns]) => `${run.threads[who]} (${duration(ns)})`).join(", ")}`);
  return lines;
}
