/** Starts the page. */
import { render } from "preact";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/layout.css";
import "./styles/panels.css";
import { App } from "./app";
import { copyRaw } from "./components/value";
import { startKeyboard } from "./keyboard";
import { startSession } from "./state/session";

document.addEventListener("copy", copyRaw);
render(<App />, document.getElementById("page")!);
startSession();
startKeyboard();
