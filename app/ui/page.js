() => {
  // Esc stops an answer that is being written, Ctrl+Enter asks the last question again.
  document.addEventListener('keydown', (event) => {
    const press = (selector) => {
      const button = document.querySelector(selector);
      if (button && button.offsetParent !== null) { button.click(); return true; }
      return false;
    };
    if (event.key === 'Escape') {
      press('#stop') || press('#compare-stop') || press('#conflict-cancel');
    } else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      const again = document.querySelectorAll('#chat button[aria-label="Retry" i], #chat button[title="Retry" i]');
      if (again.length) { event.preventDefault(); again[again.length - 1].click(); }
    }
  });
}
