// --- the score against the number of labels, as a drawing that needs no library --------------------------------------
import { make } from "./reading.js";
import { percent } from "./words.js";

const WIDTH = 460, HEIGHT = 230, LEFT = 46, RIGHT = 12, TOP = 10, BOTTOM = 34;

function draw(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// `points` are {labels, score, low, high, random?}; random is the score of as many labels that nothing had chosen.
export function curveOf(points) {
  const most = Math.max(...points.map(({ labels }) => labels));
  const least = Math.max(0, Math.floor(10 * Math.min(...points.flatMap(({ score, low, random }) => [score, low ?? score, random ?? score]))) / 10);
  const x = (labels) => LEFT + (WIDTH - LEFT - RIGHT) * labels / most;
  const y = (score) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (score - least) / (1 - least || 1));
  const line = (each, name) => draw("polyline", { class: name, points: each.map(([labels, score]) => `${x(labels)},${y(score)}`).join(" ") });
  const known = points.filter(({ low }) => low != null), random = points.filter((each) => each.random != null);
  const picture = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": textOf(points) }, ...axes(x, y, most, least));
  picture.append(draw("polygon", { class: "band", points: [...known.map((p) => `${x(p.labels)},${y(p.high)}`), ...known.toReversed().map((p) => `${x(p.labels)},${y(p.low)}`)].join(" ") }));
  if (random.length) picture.append(line(random.map((p) => [p.labels, p.random]), "random"));
  picture.append(line(points.map((p) => [p.labels, p.score]), "score"));
  const last = points.at(-1);
  picture.append(draw("circle", { class: "dot", cx: x(last.labels), cy: y(last.score), r: 4 }));
  const key = random.length ? "Line: score; band: its 95 % interval; dashes: as many labels chosen at random." : "Line: score; band: its 95 % interval.";
  return [picture, make("figcaption", { className: "help", textContent: key })];
}

function axes(x, y, most, least) {
  const found = [];
  const step = [0.05, 0.1, 0.2].find((each) => 1 - least <= 5.01 * each);
  for (let score = 1; score > least - 0.001; score -= step) {
    found.push(draw("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: y(score), y2: y(score) }));
    found.push(draw("text", { x: LEFT - 6, y: y(score) + 4, "text-anchor": "end" }, percent(score)));
  }
  for (const labels of [...new Set([0, Math.round(most / 2), most])]) found.push(draw("text", { x: x(labels), y: HEIGHT - BOTTOM + 16, "text-anchor": labels === most ? "end" : "middle" }, String(labels)));
  found.push(draw("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, "labels"));
  return found;
}

const textOf = (points) => `Score against number of labels: ${points.map(({ labels, score }) => `${labels} labels ${percent(score)}`).join(", ")}`;
