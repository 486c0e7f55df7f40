// --- try it: a dropped picture, a file or the camera, what is predicted and why ---------------------------------------
import { postPicture } from "./api.js";
import { barRow, strip } from "./lists.js";
import { byId, shown } from "./reading.js";
import { remember } from "./store.js";
import { go, isShown, register } from "./views.js";
import { percent } from "./words.js";

let stream = null, address = null, asked = 0;
const tell = (text) => { byId("try-status").textContent = text; };

async function predict(blob) {
  const mine = ++asked;
  go("try");
  showOwn(blob);
  tell("Embedding the picture …");
  try {
    const found = await postPicture("predict", blob);
    if (mine === asked) show(found);
  } catch (error) { if (mine === asked) { byId("try-found").hidden = true; tell(error.message); } }
}

function showOwn(blob) {
  if (address) URL.revokeObjectURL(address);
  address = URL.createObjectURL(blob);
  byId("try-picture").src = address;
}

function show({ label, probabilities, neighbours, map, model }) {
  const sure = Object.entries(probabilities).sort(([, a], [, b]) => b - a);
  const text = `${shown(label)}, ${percent(sure[0][1])}`;
  byId("try-label").textContent = text;
  byId("try-model").textContent = `Says the studio's own model: ${shown(model)}. What Finish writes is a fit of its own, with other probabilities.`;
  byId("try-probabilities").tBodies[0].replaceChildren(...sure.map(([name, share]) => barRow(name, share, percent(share))));
  byId("try-neighbours").replaceChildren(...strip(remember(neighbours), ({ label: own }) => own ?? "no label"));
  byId("try-map-part").hidden = !map;
  if (map) byId("try-map").src = map;
  byId("try-found").hidden = false;
  tell(`Predicted: ${text}.`);
}

async function openCamera() {
  closeCamera();
  byId("camera-open").disabled = true;  // a second click would ask for a second stream
  try { stream = await navigator.mediaDevices.getUserMedia({ video: true }); } catch (error) { tell(`The browser gives no camera (${error.message}).`); return; } finally { byId("camera-open").disabled = false; }
  if (!isShown("try")) { closeCamera(); return; }  // left while the browser asked whether it may
  byId("camera-picture").srcObject = stream;
  byId("camera").hidden = false;
}

function closeCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = byId("camera-picture").srcObject = null;
  byId("camera").hidden = true;
}

async function takePicture() {
  const video = byId("camera-picture");
  if (!video.videoWidth) { tell("The camera shows nothing yet."); return; }
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  predict(await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 }));
}

// A picture may be dropped anywhere on the page.
document.addEventListener("dragover", (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (file) predict(file);
});
byId("drop-file").addEventListener("change", ({ target }) => { if (target.files[0]) predict(target.files[0]); target.value = ""; });
byId("camera-open").addEventListener("click", openCamera);
byId("camera-close").addEventListener("click", closeCamera);
byId("camera-take").addEventListener("click", takePicture);
register("try", { whenHidden: closeCamera });
