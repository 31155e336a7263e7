// Small things that several views share.
import { useEffect, useRef, useState } from 'preact/hooks'

export const STATES = {
  ok: ['good', 'delivering'],
  backing_off: ['warn', 'trying again'],
  parked: ['bad', 'parked'],
}
export const VERDICTS = {
  accepted: ['good', 'accepted'],
  duplicate: ['plain', 'duplicate'],
  filtered: ['plain', 'filtered'],
  quarantined: ['bad', 'set aside'],
}

export function Pill({ tone = 'plain', children }) {
  return <span class={`pill ${tone}`}>{children}</span>
}

export function Head({ title, children, note }) {
  return (
    <header class="view-head">
      <div>
        <h1 tabindex="-1">{title}</h1>
        {note && <p class="soft">{note}</p>}
      </div>
      {children && <div class="actions">{children}</div>}
    </header>
  )
}

// What a person types or looks for: between backticks, a command, a setting, a name_with_underscores.
const CODE = /`([^`]*)`|(edgeproxy (?:reload|check|status|buffer [a-z]+)(?: --[a-z]+(?: [A-Z]+)?)*|\[\[?[a-z_]+\]\]?(?: [a-z_]+(?: = "[a-z]+")?)?|\b[a-z]+(?:_[a-z0-9]+)+\b)/

/** Text with commands, settings and codes told apart. */
export function Words({ text }) {
  const parts = text.split(CODE) // plain, in backticks, bare, plain, …
  return parts.map((part, index) => {
    if (index % 3 === 0) return part
    return part && <code key={index}>{part}</code>
  })
}

export function Empty({ title, children }) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      <p class="soft">{children}</p>
    </div>
  )
}

/** JSON text with keys and values told apart; everything is text, nothing is markup. */
export function Json({ text, mark, label }) {
  const rows = text.split('\n').map((row, index) => {
    const found = /^(\s*)("(?:[^"\\]|\\.)*")(:\s?)?(.*)$/.exec(row)
    const key = found?.[3] ? JSON_KEY(found[2]) : null
    const marked = mark && key === mark && /^ {2}\S/.test(row)
    return (
      <span key={index} class={marked ? 'row marked' : 'row'}>
        {key === null ? row : <>{found[1]}<span class="key">{found[2]}</span>{found[3]}{found[4]}</>}
        {marked && <span class="marker"> ← at fault</span>}
        {'\n'}
      </span>
    )
  })
  return <pre class="json" tabindex="0" role="region" aria-label={label}><code>{rows}</code></pre>
}

function JSON_KEY(text) {
  try { return JSON.parse(text) } catch { return text }
}

export function Copy({ text, label = 'Copy' }) {
  const [done, setDone] = useState(false)
  useEffect(() => {
    if (!done) return undefined
    const timer = setTimeout(() => setDone(false), 2000)
    return () => clearTimeout(timer)
  }, [done])
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text)
    } catch {
      // Without HTTPS browsers offer the old way only.
      const area = document.createElement('textarea')
      area.value = text
      document.body.append(area)
      area.select()
      document.execCommand('copy')
      area.remove()
    }
    setDone(true)
  }
  return (
    <button type="button" class="small" onClick={copy}>
      <span aria-live="polite">{done ? 'Copied' : label}</span>
    </button>
  )
}

export function Field({ label, children, grow }) {
  return <label class={grow ? 'field grow' : 'field'}><span>{label}</span>{children}</label>
}

export function Choice({ label, value, options, onChange }) {
  return (
    <Field label={label}>
      <select value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {options.map(([key, text]) => <option key={key} value={key}>{text}</option>)}
      </select>
    </Field>
  )
}

/** Two or more exclusive choices in one row. */
export function Segments({ label, value, options, onChange }) {
  return (
    <div class="segments" role="group" aria-label={label}>
      {options.map(([key, text]) => (
        <button key={key} type="button" aria-pressed={value === key} onClick={() => onChange(key)}>
          {text}
        </button>
      ))}
    </div>
  )
}

export function Toggle({ label, on, onChange }) {
  return (
    <button type="button" role="switch" aria-checked={on} class="toggle" onClick={() => onChange(!on)}>
      <span class="knob" aria-hidden="true" />{label}
    </button>
  )
}

/** A dialog that traps focus and closes on Escape: the browser's own. */
export function Dialog({ title, onClose, children, wide }) {
  const ref = useRef(null)
  useEffect(() => {
    const dialog = ref.current
    dialog.showModal()
    return () => dialog.open && dialog.close()
  }, [])
  return (
    <dialog ref={ref} class={wide ? 'wide' : ''} aria-labelledby="dialog-title"
      onCancel={(event) => { event.preventDefault(); onClose() }}
      onClick={(event) => event.target === ref.current && onClose()}>
      <div class="dialog-body">
        <header class="dialog-head">
          <h2 id="dialog-title">{title}</h2>
          <button type="button" class="icon" aria-label="Close" onClick={onClose}>×</button>
        </header>
        {children}
      </div>
    </dialog>
  )
}

/** Runs `work` now and every `seconds` while the page can be seen. */
export function usePoll(work, seconds, inputs = []) {
  useEffect(() => {
    let timer = 0
    let stopped = false
    const step = async () => {
      clearTimeout(timer)
      if (!document.hidden) await work()
      if (!stopped) timer = setTimeout(step, seconds * 1000)
    }
    const look = () => { if (!document.hidden) step() }
    step()
    document.addEventListener('visibilitychange', look)
    return () => {
      stopped = true
      clearTimeout(timer)
      document.removeEventListener('visibilitychange', look)
    }
  }, inputs)
}
