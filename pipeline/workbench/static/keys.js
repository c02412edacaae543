// The keyboard: all that the mouse can do on the images, and the way to everything else.
export const KEYS = [
  ["j, k", "next and previous image (also → and ←; ↓ and ↑ by line)"],
  ["Enter", "open the image; Esc closes it"],
  ["Space", "mark the image"],
  ["x", "images like this one"],
  ["/", "search"],
  ["v", "choose the view"],
  ["f, c, d", "flips, least certain, where members disagree"],
  ["+, −", "larger and smaller"],
  ["g, G", "first and last image"],
  ["e", "to the recipe"],
  ["i", "to the images"],
  ["n", "to the numbers"],
  ["m", "the map"],
  ["u, r", "undo and redo (also Ctrl+Z, Ctrl+Shift+Z)"],
  ["Alt+↑, Alt+↓", "in a prompt: move it"],
  ["s", "see what would be saved, and save"],
  ["p", "submissions"],
  ["?", "these keys"],
];

const WRITING = "input:not([type=range]):not([type=checkbox]), select, textarea";

// `actions` by name of a key; in a text only those with Ctrl count, and in a control those that it does not need.
export function listen(actions, isOpen) {
  document.addEventListener("keydown", event => {
    const ctrl = event.ctrlKey || event.metaKey;
    if (ctrl && event.key.toLowerCase() === "z" && !event.target.matches("input[type=text], input[type=search]")) {
      event.preventDefault();
      actions[event.shiftKey ? "r" : "u"]();
      return;
    }
    if (ctrl || event.altKey || event.target.matches(WRITING)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const onControl = event.target.matches("button, a, summary, input");
    if (onControl && ["Enter", " ", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"].includes(event.key)) return;
    if (isOpen() && !["j", "k", " ", "x", "u", "r"].includes(event.key)) return;
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
