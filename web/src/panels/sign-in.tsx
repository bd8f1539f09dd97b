/** The node asks for a token: one field, kept for this tab only. Says nothing about what lies behind it. */
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { signIn } from "../state/session";
import { keepToken, token } from "../state/token";

export function SignIn(): JSX.Element {
  const text = useSignal("");
  const refused = token.value !== null;
  return (
    <main class="sign-in" id="main">
      <form
        class="panel"
        onSubmit={(event) => {
          event.preventDefault();
          const given = text.value.trim();
          if (given === "") return;
          keepToken(given);
          text.value = "";
          signIn();
        }}
      >
        <h2>Sign in</h2>
        <p>This node serves its page to holders of its access token. Ask whoever runs the node for it.</p>
        {refused ? <p role="alert" class="word-abnormal">The token was not accepted.</p> : null}
        <label for="token">Access token</label>
        <input
          id="token"
          type="password"
          autocomplete="current-password"
          required
          value={text.value}
          onInput={(event) => (text.value = event.currentTarget.value)}
        />
        <button type="submit">Sign in</button>
      </form>
    </main>
  );
}
