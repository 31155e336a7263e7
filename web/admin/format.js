// Numbers, sizes and times as people read them.

const whole = new Intl.NumberFormat('en-US')

export const count = (value) => whole.format(value)
export const plural = (value, name) => `${count(value)} ${name}${value === 1 ? '' : 's'}`

export function rate(value) {
  if (value == null) return '–'
  if (value === 0) return '0'
  if (value < 10) return value.toFixed(1)
  if (value < 100_000) return count(Math.round(value))
  return `${(value / 1000).toFixed(0)}k`
}

export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`
  const units = ['kB', 'MB', 'GB', 'TB']
  let value = bytes
  let unit = -1
  do { value /= 1000; unit++ } while (value >= 999.5 && unit < units.length - 1)
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`
}

/** A size beside a limit, in the units that limits are usually set in. */
export function binary(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let value = bytes
  let unit = 0
  while (value >= 1023.5 && unit < units.length - 1) { value /= 1024; unit++ }
  return `${value < 10 && unit ? value.toFixed(1).replace('.0', '') : Math.round(value)} ${units[unit]}`
}

/** A span of time in its two largest units at most. */
export function span(seconds) {
  if (seconds == null) return '–'
  if (seconds < 1) return 'under 1 s'
  if (seconds < 60) return `${Math.round(seconds)} s`
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`
  const hours = Math.floor(seconds / 3600)
  if (hours < 48) return `${hours} h ${Math.round((seconds % 3600) / 60)} min`
  return `${Math.round(seconds / 86400)} days`
}

/** A duration as it is measured. */
export function millis(seconds) {
  if (seconds == null) return '–'
  const ms = seconds * 1000
  if (ms < 10) return `${ms.toFixed(1)} ms`
  if (ms < 1000) return `${Math.round(ms)} ms`
  return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`
}

const clockFormat = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })
const dayFormat = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' })

export const clock = (ms) => clockFormat.format(ms)
export const moment = (ms) => (Date.now() - ms < 12 * 3_600_000 ? clockFormat : dayFormat).format(ms)
export const ago = (ms) => {
  const seconds = Math.max((Date.now() - ms) / 1000, 0)
  return seconds < 2 ? 'just now' : `${span(seconds)} ago`
}
