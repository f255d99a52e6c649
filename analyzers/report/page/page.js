// What the hands do: wheel, drag, pinch, keys and buttons.

/** The time under a pointer. */
function timeAt({ element, view }, x) {
  const left = element.getBoundingClientRect().left + DATA.specs.timeline.padding.left;
  return shared.span[0] + ((x - left) / view.width()) * (shared.span[1] - shared.span[0]);
}

function timelineOf(element) {
  return shared.timelines.find((one) => one.element === element);
}

function listen(element) {
  const pointers = new Map();
  let held = null;
  element.addEventListener("wheel", (event) => {
    const one = timelineOf(element);
    if (event.ctrlKey || event.metaKey) zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 160), timeAt(one, event.clientX));
    else if (event.deltaX) move(event.deltaX / one.view.width());
    else return;
    event.preventDefault();
  }, { passive: false });
  element.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pointers.set(event.pointerId, event.clientX);
    held = { x: event.clientX, span: [...shared.span], at: timeAt(timelineOf(element), event.clientX), isZoom: event.shiftKey, gap: gapOf(pointers) };
    element.setPointerCapture(event.pointerId);
    element.classList.add("held");
  });
  element.addEventListener("pointermove", (event) => {
    if (!held || !pointers.has(event.pointerId)) return;
    pointers.set(event.pointerId, event.clientX);
    hideTip();
    const perPixel = (held.span[1] - held.span[0]) / timelineOf(element).view.width();
    if (pointers.size > 1) {
      const factor = held.gap / Math.max(gapOf(pointers), 8);
      setSpan(held.at - (held.at - held.span[0]) * factor, held.at + (held.span[1] - held.at) * factor);
    } else if (held.isZoom) {
      element.cursor = { from: Math.min(held.at, timeAt(timelineOf(element), event.clientX)), to: Math.max(held.at, timeAt(timelineOf(element), event.clientX)), y: 0, y2: timelineOf(element).view.height() };
      setSpan(...shared.span);
    } else setSpan(held.span[0] - (event.clientX - held.x) * perPixel, held.span[1] - (event.clientX - held.x) * perPixel);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    element.addEventListener(name, (event) => {
      pointers.delete(event.pointerId);
      if (held && held.isZoom && element.cursor && name === "pointerup") {
        const { from, to } = element.cursor;
        element.cursor = null;
        setSpan(from, to);
      }
      held = null;
      element.classList.remove("held");
    });
  }
  element.addEventListener("pointerleave", hideTip);
  element.addEventListener("dblclick", (event) => zoom(0.4, timeAt(timelineOf(element), event.clientX)));
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    action(timelineOf(element));
    event.preventDefault();
  });
  element.addEventListener("blur", () => {
    hideTip();
    element.cursor = null;
    setSpan(...shared.span);
  });
}

function gapOf(pointers) {
  const places = [...pointers.values()];
  return places.length > 1 ? Math.abs(places[0] - places[1]) : 1;
}

function move(share) {
  const length = shared.span[1] - shared.span[0];
  setSpan(shared.span[0] + share * length, shared.span[1] + share * length);
}

/** Go to the next interval of a lane, or to another lane: what hovering shows, by keyboard, and spoken. */
function step(one, lanes, pieces) {
  const { element, run } = one;
  const at = element.at || { lane: 0, index: null };
  const row = Math.max(0, Math.min(one.lanes.length - 1, at.lane + lanes));
  const lane = one.lanes[row];
  if (!lane.pieces.length) return;
  const middle = (shared.span[0] + shared.span[1]) / 2;
  const near = firstAfter(run, lane, at.index === null ? middle : run.pieces.start[one.lanes[at.lane].pieces[at.index]]);
  const wanted = lanes || at.index === null ? near : at.index + pieces;
  const index = Math.max(0, Math.min(lane.pieces.length - 1, wanted));
  element.at = { lane: row, index };
  const piece = lane.pieces[index];
  const start = run.pieces.start[piece], end = start + run.pieces.length[piece];
  element.cursor = { from: start, to: end, y: lane.y - 1, y2: lane.y + lane.height + 1 };
  const [from, to] = shared.span;
  const shift = start < from || end > to ? (start + end) / 2 - (from + to) / 2 : 0;
  setSpan(from + shift, to + shift);
  const lines = describePiece(run, piece);
  document.getElementById("spoken").textContent = lines.join(". ");
  const box = element.getBoundingClientRect();
  const x = DATA.specs.timeline.padding.left + (((start + end) / 2 - shared.span[0]) / (shared.span[1] - shared.span[0])) * one.view.width();
  showTip(lines, box.left + x, box.top + lane.y + lane.height + 10);
}

const KEYS = {
  ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2), "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), "0": () => setSpan(...shared.whole),
  Home: () => setSpan(...shared.whole), ArrowUp: () => zoom(0.6), ArrowDown: () => zoom(1 / 0.6), n: (one) => step(one, 0, 1), p: (one) => step(one, 0, -1),
  j: (one) => step(one, 1, 0), k: (one) => step(one, -1, 0), Escape: hideTip,
};
const BUTTONS = { in: () => zoom(0.6), out: () => zoom(1 / 0.6), left: () => move(-0.4), right: () => move(0.4), reset: () => setSpan(...shared.whole) };

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.zoom) BUTTONS[button.dataset.zoom]();
  if (button.classList.contains("copy")) copy(button);
  if (button.classList.contains("show")) {
    const from = Number(button.dataset.from), to = Number(button.dataset.to);
    const around = Math.max(1.5 * (to - from), (shared.whole[1] - shared.whole[0]) / 400, 200);
    setSpan(from - around, to + around);
    document.getElementById(`timeline-${button.dataset.run}`).scrollIntoView({ block: "center" });
    document.getElementById(`timeline-${button.dataset.run}`).focus({ preventScroll: true });
  }
});

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(button.previousElementSibling); // a page from a file may not write there: it is ready to be copied
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

let resizing = 0, width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(resizing);
  resizing = setTimeout(drawAll, 120);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
document.querySelectorAll(".timeline").forEach(listen);
drawAll();
