// The camera: a live picture, other cameras, and a burst while a button is held.

import { button, fill, h, icon, sentence, tool } from "../lib/dom.js";
import { frameOf } from "../lib/pictures.js";
import { waiting } from "./pieces.js";

//: Milliseconds between the pictures of a burst, and most pictures of one.
const EVERY = 180;
const MOST = 60;

const WHY = {
  NotAllowedError: "The browser does not let this page use the camera. Allow it beside the address, then try again.",
  NotFoundError: "No camera was found. Connect one, or choose pictures instead.",
  NotReadableError: "Another program uses the camera. Close it, then try again.",
};

export class Camera {
  constructor() {
    this.video = h("video", { playsinline: true, muted: true, autoplay: true, "aria-label": "Live picture of the camera" });
    this.video.muted = true;
    this.shade = h("div", { class: "camera-shade" });
    this.flip = tool("Use another camera", () => this.another(), "flip", { class: "button tool camera-flip", hidden: true });
    this.element = h("div", { class: "camera" }, this.video, this.shade, this.flip);
    this.stream = null;
  }

  get isOn() {
    return this.stream !== null;
  }

  /** Start; return whether there is a picture. */
  async start(device) {
    this.stop();
    this.wanted = true;
    fill(this.shade, waiting("Starting the camera"));
    try {
      if (!navigator.mediaDevices) throw new Error("The camera needs an address that begins with https or localhost.");
      const video = { width: { ideal: 960 }, height: { ideal: 720 }, ...(device ? { deviceId: { exact: device } } : { facingMode: { ideal: "environment" } }) };
      const stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
      if (!this.wanted) { // left meanwhile
        for (const track of stream.getTracks()) track.stop();
        return false;
      }
      this.stream = stream;
      this.video.srcObject = stream;
      await this.video.play();
    } catch (error) {
      this.stop();
      fill(this.shade, h("div", { class: "camera-problem", role: "alert" }, icon("camera"), h("p", {}, WHY[error.name] ?? sentence(error.message)), button("Try again", () => this.start())));
      return false;
    }
    const devices = (await navigator.mediaDevices.enumerateDevices()).filter((one) => one.kind === "videoinput");
    const { deviceId, facingMode } = this.stream.getVideoTracks()[0].getSettings();
    this.devices = devices.map((one) => one.deviceId);
    this.device = deviceId;
    this.flip.hidden = devices.length < 2;
    this.video.classList.toggle("mirrored", facingMode !== "environment");
    fill(this.shade);
    this.onstart?.();
    return true;
  }

  another() {
    const place = this.devices.indexOf(this.device);
    return this.start(this.devices[(place + 1) % this.devices.length]);
  }

  stop() {
    this.wanted = false;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
  }

  /** Return what it shows now. */
  frame() {
    return this.isOn && this.video.videoWidth ? frameOf(this.video) : Promise.resolve(null);
  }
}

/** Return a button that takes pictures while it is held. */
export function burstButton(camera, onpicture) {
  const label = h("span", {}, "Hold to take pictures");
  const node = h("button", { type: "button", class: "button main burst" }, h("span", { class: "burst-dot", "aria-hidden": "true" }), label);
  let timer = null;
  let taken = 0;
  const shoot = async () => {
    if ((taken += 1) > MOST) return stop();
    const picture = await camera.frame();
    if (!picture) return;
    label.textContent = `Taking: ${taken}`;
    onpicture(picture);
  };
  const start = () => {
    if (timer !== null || !camera.isOn) return;
    taken = 0;
    node.classList.add("held");
    shoot();
    timer = setInterval(shoot, EVERY);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    node.classList.remove("held");
    label.textContent = "Hold to take pictures";
  };
  node.addEventListener("pointerdown", (event) => { if (event.button === 0) { node.setPointerCapture(event.pointerId); start(); } });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) node.addEventListener(name, stop);
  node.addEventListener("contextmenu", (event) => event.preventDefault());
  node.addEventListener("keydown", (event) => { if ((event.key === " " || event.key === "Enter") && !event.repeat) { event.preventDefault(); start(); } });
  node.addEventListener("keyup", stop);
  node.addEventListener("click", (event) => { if (event.detail === 0 && timer === null && camera.isOn) { taken = 0; shoot().then(stop); } }); // a screen reader
  return node;
}
