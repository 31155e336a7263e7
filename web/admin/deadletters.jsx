import { useEffect, useState } from 'preact/hooks'
import { get, lines, query } from './api.js'
import { ago, count, moment, plural, size, span } from './format.js'
import { Dialog, Empty, Head, Json, Pill, Toggle, usePoll, Words } from './parts.jsx'

const SHOWN = 50
const keyOf = (group) => `${group.source}\n${group.code}\n${group.type}\n${group.event}`
const NAMED = (group) => group.event || (group.type ? `${group.type} without a name` : 'not readable')

export function DeadLetters({ params, refresh }) {
  const [groups, setGroups] = useState(null)
  const [open, setOpen] = useState(null)
  const [doing, setDoing] = useState(null)
  const look = async () => {
    try { setGroups(await get('api/deadletters/groups')) } catch { /* the banner says it */ }
  }
  usePoll(look, 10)
  const shown = groups?.filter((group) => !params.code || group.code === params.code) ?? []
  const total = shown.reduce((sum, group) => sum + group.count, 0)
  const done = () => { setDoing(null); look(); refresh() }

  return (
    <>
      <Head title="Dead letters" note="Events that were accepted and cannot be sent as they are, kept with the reason until you replay or purge them, or their limit removes them.">
        {params.code && <a class="button" href="#dead-letters">Show all codes</a>}
        {total > 0 && <button type="button" onClick={() => exportLetters({ code: params.code })}>Export all</button>}
      </Head>
      {groups && shown.length === 0 && <Empty title="None">Every event so far could be sent, or has been dealt with.</Empty>}
      {shown.length > 0 && (
        <ul class="groups">
          {shown.map((group) => {
            const key = keyOf(group)
            return (
              <li key={key} class="card">
                <div class="group-head">
                  <span class="group-count">{count(group.count)}</span>
                  <div class="group-name">
                    <h2>{NAMED(group)}</h2>
                    <p class="soft"><Pill tone="bad">{group.code}</Pill> {group.source} · first {moment(group.first)} · last {ago(group.last)}</p>
                    <p class="soft cause"><Words text={group.words[0].toUpperCase() + group.words.slice(1)} />.</p>
                  </div>
                  <div class="actions">
                    <button type="button" class="small" aria-expanded={open === key} onClick={() => setOpen(open === key ? null : key)}>{open === key ? 'Close' : 'Look'}</button>
                    <button type="button" class="small" onClick={() => setDoing({ what: 'replay', group })}>Replay</button>
                    <button type="button" class="small" onClick={() => exportLetters(chosen(group))}>Export</button>
                    <button type="button" class="small danger" onClick={() => setDoing({ what: 'purge', group })}>Purge</button>
                  </div>
                </div>
                {open === key && <Letters group={group} onDoing={setDoing} />}
              </li>
            )
          })}
        </ul>
      )}
      {doing && <Doing {...doing} onClose={done} />}
    </>
  )
}

/** The filter that means a group; a group of unreadable events is all of its code. */
function chosen({ source, code, event, type, id, ids }) {
  if (ids !== undefined) return { ids }
  if (id !== undefined) return { id: String(id) }
  return event === '…' ? { source, code } : { source, code, event, type }
}

async function exportLetters(filter) {
  const texts = []
  await lines(`api/deadletters${query({ ...filter, bodies: true })}`, {}, (line) => texts.push(JSON.stringify(line)))
  const link = document.createElement('a')
  link.href = URL.createObjectURL(new Blob([`${texts.join('\n')}\n`], { type: 'application/x-ndjson' }))
  link.download = 'dead-letters.ndjson'
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 1000)
}

function Letters({ group, onDoing }) {
  const [letters, setLetters] = useState([])
  const [open, setOpen] = useState(null)
  const [picked, setPicked] = useState(new Set())
  const selected = letters.filter(({ id }) => picked.has(id)) // of those that are still there
  const selection = { ...group, ids: selected.map(({ id }) => id), count: selected.length }
  const pick = (id, on) => {
    const next = new Set(picked)
    if (on) next.add(id)
    else next.delete(id)
    setPicked(next)
  }
  useEffect(() => {
    const ending = new AbortController()
    const found = []
    lines(`api/deadletters${query({ ...chosen(group), limit: SHOWN, newest_first: true })}`, { signal: ending.signal }, (line) => found.push(line))
      .then(() => setLetters(found), () => undefined)
    return () => ending.abort()
  }, [keyOf(group), group.count])
  return (
    <div class="letters">
      {group.count > SHOWN && <p class="soft">The latest {SHOWN} of {count(group.count)}.</p>}
      <div class="selecting" role="group" aria-label="Selection">
        <label class="check">
          <input type="checkbox" disabled={!letters.length} checked={selected.length > 0 && selected.length === letters.length}
            ref={(box) => { if (box) box.indeterminate = selected.length > 0 && selected.length < letters.length }}
            onChange={(event) => setPicked(new Set(event.currentTarget.checked ? letters.map(({ id }) => id) : []))} />
          Select all shown
        </label>
        <span class="soft" role="status">{selected.length > 0 && `${count(selected.length)} selected`}</span>
        <div class="actions">
          <button type="button" class="small" disabled={!selected.length} onClick={() => onDoing({ what: 'replay', group: selection })}>Replay selected</button>
          <button type="button" class="small" disabled={!selected.length} onClick={() => exportLetters(chosen(selection))}>Export selected</button>
          <button type="button" class="small danger" disabled={!selected.length} onClick={() => onDoing({ what: 'purge', group: selection })}>Purge selected</button>
        </div>
      </div>
      <ul>
        {letters.map((letter) => (
          <li key={letter.id}>
            <input type="checkbox" checked={picked.has(letter.id)} aria-label={`Select ${letter.messageId || letter.id}`}
              onChange={(event) => pick(letter.id, event.currentTarget.checked)} />
            <button type="button" class="link mono" onClick={() => setOpen(letter)}>{letter.messageId || `number ${letter.id}`}</button>
            <span class="soft">{moment(letter.diedAt)} · {size(letter.bytes)}</span>
            <button type="button" class="small" aria-label={`Replay ${letter.messageId || letter.id}`} onClick={() => onDoing({ what: 'replay', group: { ...group, id: letter.id, count: 1 } })}>Replay</button>
            <button type="button" class="small danger" aria-label={`Purge ${letter.messageId || letter.id}`} onClick={() => onDoing({ what: 'purge', group: { ...group, id: letter.id, count: 1 } })}>Purge</button>
          </li>
        ))}
      </ul>
      {open && <Letter id={open.id} onClose={() => setOpen(null)} />}
    </div>
  )
}

function Letter({ id, onClose }) {
  const [values, setValues] = useState(false)
  const [letter, setLetter] = useState(null)
  const [problem, setProblem] = useState('')
  useEffect(() => {
    get(`api/deadletters/letters/${id}${query({ values })}`).then(setLetter, (error) => setProblem(error.message))
  }, [id, values])
  return (
    <Dialog title={letter ? letter.code : 'Dead letter'} wide onClose={onClose}>
      {problem && <p class="problem">{problem}</p>}
      {letter && (
        <>
          <div class="dialog-tools">
            <span class="mono soft">{letter.messageId}</span>
            <Toggle label="Show values" on={values} onChange={setValues} />
          </div>
          <p class="why">{letter.message ? <Words text={legible(letter.message)} /> : 'Show values to read the message: it may quote the event.'}</p>
          {letter.status && <p>Hightouch answered <code>{letter.status}</code>{letter.answer && `: ${letter.answer}`}</p>}
          <dl class="rows compact">
            <div><dt>Source</dt><dd>{letter.source}</dd></div>
            <div><dt>Received</dt><dd>{moment(letter.receivedAt)}</dd></div>
            <div><dt>Set aside</dt><dd>{moment(letter.diedAt)}</dd></div>
            <div><dt>Replay</dt><dd>{!letter.bytes ? 'not possible: its body was not kept' : letter.form === 'received' ? 'with today’s mapping' : 'as it is'}</dd></div>
          </dl>
          {letter.field && !letter.body.includes(`\n  "${letter.field}":`) && (
            <p class="missing"><b>At fault:</b> <code>{letter.field}</code> is missing.</p>
          )}
          {letter.body === '' || letter.bytes === 0 ? <p class="soft pad">Only metadata is kept ([dead_letters] keep).</p>
            : <Json text={letter.body} mark={letter.field} label="The event" />}
        </>
      )}
    </Dialog>
  )
}

// An event's age is told in seconds.
const legible = (message) => message.replace(/(\d{4,}) s\b/g, (_, seconds) => span(Number(seconds)))

const WORDS = {
  replay: ['Replay', 'Submits them again: what was never sendable goes through today’s mapping, the rest as it is. Those that are refused again stay.'],
  purge: ['Purge', 'Removes them for good. This cannot be undone; export them first if in doubt.'],
}

function Doing({ what, group, onClose }) {
  const [name, words] = WORDS[what]
  const [progress, setProgress] = useState(null)
  const [problem, setProblem] = useState('')
  const [number, setNumber] = useState(group.count)
  useEffect(() => {
    // What was listed may have come to be more or fewer.
    get(`api/deadletters/count${query(chosen(group))}`).then((found) => setNumber(found.count), () => undefined)
  }, [])
  const run = async () => {
    setProgress({ total: number, done: 0 })
    try {
      await lines(`api/deadletters/${what}`, { method: 'POST', body: chosen(group) }, setProgress)
    } catch (error) {
      setProblem(error.message)
    }
  }
  const left = progress && Object.values(progress.refused ?? {}).reduce((a, b) => a + b, 0)
  return (
    <Dialog title={`${name} ${plural(number, 'dead letter')}`} onClose={onClose}>
      <p>{group.ids ? 'The selected ones of ' : ''}{group.id === undefined ? <><code>{group.code}</code> of {group.source}: {NAMED(group)}</> : <>Dead letter {group.id}</>}</p>
      <p class="soft">{words}</p>
      {progress && <progress max={Math.max(progress.total, 1)} value={progress.done} aria-label="Progress" />}
      {progress && !progress.ended && <p class="soft">{count(progress.done)} of {count(progress.total)}</p>}
      <p role="status">
        {progress?.ended && (what === 'replay'
          ? `${count(progress.moved)} on their way again${progress.filtered ? `, ${count(progress.filtered)} removed by a filter` : ''}${left ? `, ${count(left)} refused again` : ''}${progress.not_kept ? `, ${count(progress.not_kept)} not possible: their bodies were not kept` : ''}.`
          : `${count(progress.moved)} removed.`)}
        {progress?.stopped && ` Ended early: ${progress.stopped}`}
        {problem && <span class="problem">{problem}</span>}
      </p>
      <div class="dialog-actions">
        {progress ? <button type="button" class="primary" onClick={onClose}>{progress.ended || problem ? 'Done' : 'Close'}</button> : (
          <>
            <button type="button" onClick={onClose}>Cancel</button>
            <button type="button" class={what === 'purge' ? 'primary danger' : 'primary'} onClick={run}>{name}</button>
          </>
        )}
      </div>
    </Dialog>
  )
}
