// A table as a CSV file; a text that a spreadsheet would take for a formula gets an apostrophe.

function saveCsv(name, rows) {
  const text = (value) => String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""');
  const cell = (value) => (typeof value === "number" ? String(value) : `"${text(value)}"`);
  const lines = rows.map((row) => row.map(cell).join(","));
  const address = URL.createObjectURL(new Blob(["\ufeff", lines.join("\r\n"), "\r\n"], { type: "text/csv" }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
