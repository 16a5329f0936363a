// Light or dark: as the system has it, until somebody says otherwise.
import { effect, signal } from "@preact/signals";

const NAME = "refold theme";
const system = matchMedia("(prefers-color-scheme: dark)");

export const theme = signal(localStorage.getItem(NAME) ?? (system.matches ? "dark" : "light"));

system.addEventListener("change", () => {
  if (!localStorage.getItem(NAME)) theme.value = system.matches ? "dark" : "light";
});
effect(() => (document.documentElement.dataset.theme = theme.value));

export function turn() {
  theme.value = theme.value === "dark" ? "light" : "dark";
  localStorage.setItem(NAME, theme.value);
}
