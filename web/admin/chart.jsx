// A line chart over time. uPlot draws; a sentence says the same to those who cannot see it.
import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'

const MINUTE = 60
const HOUR = 3600
// Labels are hours and minutes: no two ticks within one minute.
const STEPS = [1, 2, 5, 10, 15, 30].map((n) => n * MINUTE).concat([1, 2, 3, 6, 12, 24].map((n) => n * HOUR))
const WHOLE = Array.from({ length: 30 }, (_, n) => [1, 2, 5][n % 3] * 10 ** Math.floor(n / 3))

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

function options(width, height, { series, format, seconds, whole }) {
  const axis = {
    stroke: colour('--soft'),
    grid: { stroke: colour('--grid'), width: 1 },
    ticks: { show: false },
    font: '12px system-ui, sans-serif',
  }
  return {
    width,
    height,
    legend: { show: false },
    cursor: { y: false, points: { size: 6 } },
    padding: [10, 20, 0, 0],
    scales: {
      x: { range: (_, low, high) => [Math.max(high - seconds, Math.min(low, high - 120)), high] },
      y: { range: (_, low, high) => [0, Math.max(high * 1.15, 1)] },
    },
    axes: [
      { ...axis, grid: { show: false }, space: 64, size: 30, incrs: STEPS, values: (_, ticks) => ticks.map(hours) },
      { ...axis, size: 56, space: 34, ...(whole && { incrs: WHOLE }), values: (_, ticks) => ticks.map(format) },
    ],
    series: [
      {},
      ...series.map(({ label, tone, fill, width: thick }) => ({
        label,
        stroke: colour(tone),
        width: thick ?? 1.75,
        fill: fill ? `${colour(tone)}22` : undefined,
        points: { show: false },
      })),
    ],
  }
}

const pad = (value) => String(value).padStart(2, '0')
const hours = (seconds) => {
  const date = new Date(seconds * 1000)
  return `${pad(date.getHours())}:${pad(date.getMinutes())}`
}

/** `whole` is for what is counted in whole numbers. */
export function Chart({ data, series, height = 200, format = String, seconds = 900, whole = false, label }) {
  const box = useRef(null)
  const plot = useRef(null)
  const readout = useRef(null)
  const latest = useRef(data)
  latest.current = data

  useEffect(() => {
    const draw = () => {
      plot.current?.destroy()
      const made = options(box.current.clientWidth, height, { series, format, seconds, whole })
      made.hooks = { setCursor: [(u) => tell(u, series, format, readout.current)] }
      plot.current = new uPlot(made, latest.current, box.current)
    }
    draw()
    const sizes = new ResizeObserver(() => {
      if (plot.current && box.current.clientWidth !== plot.current.width) {
        plot.current.setSize({ width: box.current.clientWidth, height })
      }
    })
    sizes.observe(box.current)
    const dark = matchMedia('(prefers-color-scheme: dark)')
    dark.addEventListener('change', draw)
    return () => {
      sizes.disconnect()
      dark.removeEventListener('change', draw)
      plot.current.destroy()
      plot.current = null
    }
  }, [height])

  useEffect(() => { plot.current?.setData(data) }, [data])

  return (
    <figure class="chart">
      <div class="legend" aria-hidden="true">
        {series.map(({ label: name, tone }) => (
          <span key={name}><i class={`swatch ${tone.slice(2)}`} />{name}</span>
        ))}
        <output ref={readout} />
      </div>
      <div ref={box} role="img" aria-label={label} />
    </figure>
  )
}

function tell(u, series, format, output) {
  if (!output) return
  const at = u.cursor.idx
  if (at == null) { output.textContent = ''; return }
  const values = series.map(({ label }, index) => `${label.toLowerCase()} ${format(u.data[index + 1][at] ?? 0)}`)
  output.textContent = `${hours(u.data[0][at])} · ${values.join(' · ')}`
}
