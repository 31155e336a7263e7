import { useState } from 'preact/hooks'
import { get } from './api.js'
import { Chart } from './chart.jsx'
import { binary, count, millis, plural, rate, span } from './format.js'
import { Head, Pill, Segments, STATES, usePoll, Words } from './parts.jsx'

const RATES = [
  { label: 'Accepted', tone: '--series-in', fill: true },
  { label: 'Delivered', tone: '--series-out' },
  { label: 'Set aside', tone: '--series-bad' },
]
const BACKLOG = [{ label: 'Waiting', tone: '--series-in', fill: true }]

export function Overview({ overview }) {
  const [spanOf, setSpan] = useState('recent')
  const recent = useHistory('recent', 5)
  const day = useHistory('day', 60, spanOf === 'day')
  const history = spanOf === 'day' ? day : recent
  if (!overview) return <Head title="Overview" note="Asking the proxy…" />

  const { status, findings, times } = overview
  return (
    <>
      <Head title="Overview">
        <Segments label="Time shown" value={spanOf} onChange={setSpan} options={[['recent', '15 min'], ['day', '24 h']]} />
      </Head>
      {findings.length === 0 && <Calm status={status} />}
      <Findings label="Outages" findings={findings.filter(({ level }) => level === 'outage')} />
      <Tiles overview={overview} history={recent} />
      <Findings label="What needs a look" findings={findings.filter(({ level }) => level !== 'outage')} />
      <div class="grid two">
        <section class="card" aria-labelledby="rates-title">
          <div class="card-head"><h2 id="rates-title">Events a second</h2><span class="soft">last {WINDOW[spanOf]}</span></div>
          {history && (
            <Chart key={spanOf} series={RATES} format={rate} height={200} seconds={spanOf === 'recent' ? 900 : 86400}
              data={[history.at, history.accepted, history.delivered, history.quarantined]}
              label={sentence(history, spanOf)} />
          )}
        </section>
        <section class="card" aria-labelledby="backlog-title">
          <div class="card-head"><h2 id="backlog-title">Waiting to be delivered</h2><span class="soft">last {WINDOW[spanOf]}</span></div>
          {history && (
            <Chart key={spanOf} series={BACKLOG} format={short} whole height={200} seconds={spanOf === 'recent' ? 900 : 86400} data={[history.at, history.events]}
              label={`Events waiting, now ${count(status.buffer.events)}, at most ${count(Math.max(0, ...history.events))}.`} />
          )}
        </section>
      </div>
      <Lanes lanes={status.lanes} />
      <div class="grid two">
        <Times times={times} />
        <About overview={overview} />
      </div>
    </>
  )
}

/** The past of 15 minutes or a day, while it is wanted. */
function useHistory(spanOf, seconds, wanted = true) {
  const [history, setHistory] = useState(null)
  usePoll(async () => {
    if (!wanted) return
    try { setHistory(await get(`api/history?span=${spanOf}`)) } catch { /* the banner says it */ }
  }, seconds, [wanted])
  return history
}

const WINDOW = { recent: '15 min', day: '24 h' }
const short = (value) => (value >= 1e6 ? `${value / 1e6}M` : value >= 1000 ? `${value / 1000}k` : String(value))

function sentence(history, spanOf) {
  const last = (name) => rate(history[name].at(-1) ?? 0)
  const most = rate(Math.max(0, ...history.accepted))
  return `Events a second over ${WINDOW[spanOf]}: now ${last('accepted')} accepted, `
    + `${last('delivered')} delivered, ${last('quarantined')} set aside; at most ${most} accepted.`
}

function Calm({ status }) {
  const idle = status.totals.received === 0
  return (
    <section class="calm">
      <svg viewBox="0 0 24 24" width="26" height="26" aria-hidden="true"><path d="m5 12.5 4.5 4.5L19 7.5" /></svg>
      <div>
        <h2>{idle ? 'Ready for the first event' : 'Every event is getting through'}</h2>
        <p class="soft">
          {idle ? <>Nothing has come in since the proxy started. <a href="#setup">Set up an SDK</a></>
            : 'Events are accepted, and Hightouch takes them.'}
        </p>
      </div>
    </section>
  )
}

function Findings({ label, findings }) {
  return (
    <section class="findings" aria-label={label} hidden={findings.length === 0}>
      {findings.map((finding) => (
        <article key={finding.title} class={`finding ${finding.level}`}>
          <h2><span class="sr">{finding.level}: </span>{finding.title}</h2>
          <p><Words text={finding.words} /></p>
          <p class="remedy"><b>What to do</b> <Words text={finding.remedy} /></p>
          {finding.view && <a class="go" href={`#${finding.view}`}>{GO[finding.view.split('?')[0]]}</a>}
        </article>
      ))}
    </section>
  )
}
const GO = { 'dead-letters': 'Show the dead letters', setup: 'Open SDK set-up', live: 'Watch the events' }

function Tiles({ overview, history }) {
  const { status, fullInSeconds, findings } = overview
  const { buffer } = status
  const last = (name) => history?.[name].at(-1) ?? null
  const share = buffer.bytes / buffer.max_bytes
  const [used, unit] = binary(buffer.bytes).split(' ')
  const disk = status.not_ready || share > 0.9 ? 'bad' : share > 0.6 || (fullInSeconds ?? 1e9) < 86400 ? 'warn' : ''
  const stuck = findings.some(({ level }) => level === 'outage') && buffer.events > 0
  const late = stuck || (buffer.oldest_age_seconds ?? 0) > 60
  return (
    <dl class="tiles">
      <Tile name="Accepted" value={rate(last('accepted'))} unit="/s" note={`${count(status.totals.accepted)} since the start`} />
      <Tile name="Delivered" value={rate(last('delivered'))} unit="/s" note={`${count(status.totals.delivered)} since the start`} />
      <Tile name="Set aside" value={rate(last('quarantined'))} unit="/s" tone={last('quarantined') > 0 ? 'warn' : ''}
        note={`${plural(status.dead_letters.count, 'dead letter')} kept`} />
      <Tile name="Waiting" value={count(buffer.events)} tone={late ? 'bad' : ''}
        note={buffer.oldest_age_seconds == null ? 'nothing waits' : `oldest: ${span(buffer.oldest_age_seconds)}`} />
      <Tile name="Disk" value={used} unit={`${unit} of ${binary(buffer.max_bytes)}`} tone={disk}
        note={status.not_ready ? 'full' : fullInSeconds == null ? `${(share * 100).toFixed(share < 0.1 ? 1 : 0)}%, not filling` : `full in ${span(fullInSeconds)}`}
        meter={share} />
    </dl>
  )
}

function Tile({ name, value, unit, note, tone = '', meter }) {
  return (
    <div class={`tile ${tone}`}>
      <dt>{name}</dt>
      <dd class="value">{value}{unit && <small>{unit}</small>}</dd>
      {meter !== undefined && <dd class="meter" aria-hidden="true"><i style={{ width: `${Math.min(meter, 1) * 100}%` }} /></dd>}
      <dd class="note">{note}</dd>
    </div>
  )
}

function Lanes({ lanes }) {
  return (
    <section class="card" aria-labelledby="lanes-title">
      <div class="card-head"><h2 id="lanes-title">Lanes to Hightouch</h2></div>
      <ul class="lanes">
        {lanes.map((lane) => {
          const [tone, words] = STATES[lane.state] ?? ['plain', lane.state]
          return (
            <li key={lane.name}>
              <div class="lane-head">
                <strong>{lane.name}</strong>
                <Pill tone={tone}>{words}</Pill>
                <span class="endpoint">{lane.endpoint ?? 'no destination'}</span>
                <span class="lane-numbers">{count(lane.delivered)} delivered · {plural(lane.in_flight, 'batch').replace('batchs', 'batches')} on the way</span>
              </div>
              {lane.reason && (
                <div class="lane-why">
                  <p><Words text={lane.words[0].toUpperCase() + lane.words.slice(1)} /> <code>{lane.reason}</code>
                    {lane.next_attempt_seconds != null && <span class="soft"> · next attempt in {span(lane.next_attempt_seconds)}</span>}</p>
                  {lane.detail && <p class="soft">It says: <span class="mono">{lane.detail}</span></p>}
                  <p><b>What to do</b> <Words text={lane.remedy} /></p>
                </div>
              )}
            </li>
          )
        })}
      </ul>
    </section>
  )
}

const TIMES = [
  ['answer', 'Answer to a client', 'from a request’s head to its answer, sync included'],
  ['commit', 'Commit to disk', 'one transaction and its sync'],
  ['delivery', 'Answer of Hightouch', 'one batch, sent and answered'],
  ['lag', 'From receipt to delivery', 'of a batch’s first event'],
]

function Times({ times }) {
  return (
    <section class="card" aria-labelledby="times-title">
      <div class="card-head"><h2 id="times-title">How long things take</h2><span class="soft">last 5 minutes</span></div>
      <div class="scroll" tabindex="0" role="region" aria-label="Table of times"><table class="figures">
        <thead><tr><th scope="col"><span class="sr">What</span></th><th scope="col">Median</th><th scope="col">99%</th></tr></thead>
        <tbody>
          {TIMES.map(([key, name, note]) => (
            <tr key={key}>
              <th scope="row">{name}<small>{note}</small></th>
              <td>{millis(times[key]?.p50)}</td>
              <td>{millis(times[key]?.p99)}</td>
            </tr>
          ))}
        </tbody>
      </table></div>
    </section>
  )
}

function About({ overview }) {
  const { status, started } = overview
  const { totals } = status
  const rows = [
    ['Received', count(totals.received)],
    ['Repeats, stored once', count(totals.duplicates)],
    ['Removed by filters', count(totals.filtered)],
    ['Expired', count(totals.expired)],
    ['Running for', span(Date.now() / 1000 - started)],
    ['Version', status.version],
    ['Mapping revision', status.mapping_revision],
  ]
  return (
    <section class="card" aria-labelledby="about-title">
      <div class="card-head"><h2 id="about-title">Since the start</h2></div>
      <dl class="rows">
        {rows.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}
      </dl>
    </section>
  )
}
