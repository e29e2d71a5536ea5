// Runs before the page is drawn: light or dark as Airflow's UI around it, else as this browser's setting for Airflow.
"use strict";
(() => {
  const root = document.documentElement;
  const outer = () => {
    try {
      return window.parent !== window ? window.parent.document.documentElement : null;
    } catch {
      return null; // a page of another site around it, which the policy forbids
    }
  };
  const around = outer();
  const dark = () => {
    if (around) return around.classList.contains("dark");
    const chosen = localStorage.getItem("theme");
    return chosen ? chosen === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const show = () => root.classList.toggle("dark", dark());
  show();
  if (around) new MutationObserver(show).observe(around, { attributes: true, attributeFilter: ["class"] });
  else window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
})();
