// One WebSocket to the server; what is asked while it is away is asked again when it is back.
import { parse } from "./store.js";

let socket = null, waiting = [], hear = () => {}, told = () => {};

export function connect(onFrame, onState, hello) {
  hear = onFrame;
  told = onState;
  const address = new URL("socket", location.href);
  address.protocol = "ws:";
  address.hash = "";
  socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  socket.addEventListener("open", () => {
    told(true);
    socket.send(JSON.stringify(hello()));
    for (const text of waiting.splice(0)) socket.send(text);
  });
  socket.addEventListener("message", event => hear(parse(event.data)));
  socket.addEventListener("close", () => {
    told(false);
    setTimeout(connect, 1000, onFrame, onState, hello);
  });
}

export function ask(word, more = {}) {
  const text = JSON.stringify({ do: word, ...more });
  if (socket?.readyState === WebSocket.OPEN) socket.send(text);
  else if (word === "edit") waiting.push(text);
}

export const edit = (edits, control = "") => ask("edit", { edits: Array.isArray(edits) ? edits : [edits], control });
