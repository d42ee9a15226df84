// Tables for spreadsheets, which must not run a name as a formula.

const FORMULA = /^[=+\-@\t\r]/;

/** Whether numbers have a comma where this browser is at home: Excel then expects semicolons between fields. */
const hasComma = () => (0.5).toLocaleString().includes(",");

function cell(value, comma) {
  if (typeof value === "number") return comma ? String(value).replace(".", ",") : String(value);
  const text = String(value ?? "");
  const safe = FORMULA.test(text) ? `'${text}` : text;
  return /[",;\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Return rows as CSV for Excel of this country. */
export function csv(rows, comma = hasComma()) {
  return rows.map((row) => row.map((value) => cell(value, comma)).join(comma ? ";" : ",")).join("\r\n") + "\r\n";
}

/** Let the browser save something. */
export function save(name, content, type = "text/csv") {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob(["\ufeff", content], { type }));
  const link = document.createElement("a");
  Object.assign(link, { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
