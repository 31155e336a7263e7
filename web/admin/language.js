// WebKitGTK calls the POSIX locale "C". Intl throws at that, and uPlot hands it over as it is loaded.
try {
  new Intl.NumberFormat(navigator.language)
} catch {
  Object.defineProperty(navigator, 'language', { value: 'en-US', configurable: true })
}
