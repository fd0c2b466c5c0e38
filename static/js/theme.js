// Applies the chosen theme before the first paint; "system" leaves the choice to the browser. A plain script, loaded in <head>.
(() => {
  let choice = null;
  try {
    choice = localStorage.getItem("mailstead.theme");
  } catch {
    // storage switched off: follow the system
  }
  if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
})();
