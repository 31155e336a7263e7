import { useEffect, useState } from 'preact/hooks'
import { get, lines, query } from './api.js'
import { clock } from './format.js'
import { Choice, Copy, Field, Head } from './parts.jsx'
import { forms, SDKS } from './sdks.js'

const PLACEHOLDER = (source) => `WRITE_KEY_OF_${source.toUpperCase().replace(/[^A-Z0-9]+/g, '_')}`

export function Setup() {
  const [setup, setSetup] = useState(null)
  const [name, setName] = useState('')
  const [address, setAddress] = useState('')
  const [sdkId, setSdkId] = useState('browser')
  const [keys, setKeys] = useState({}) // typed here, by source; they go nowhere
  useEffect(() => {
    get('api/setup').then((found) => {
      setSetup(found)
      setAddress(found.publicUrl || `${found.tls ? 'https' : 'http'}://${location.hostname}:${found.port}`)
    }, () => undefined)
  }, [])
  if (!setup) return <Head title="SDK set-up" note="Asking the proxy…" />
  const source = setup.sources.find((one) => one.name === name) ?? setup.sources[0]
  const sdk = SDKS.find((one) => one.id === sdkId)
  const at = forms(address)
  const key = keys[source.name] || PLACEHOLDER(source.name)
  const text = at ? sdk.lines({ at, key }) : ''
  return (
    <>
      <Head title="SDK set-up" note="The lines to paste so that an SDK sends to this proxy." />
      <div class="filters">
        <Choice label="Source" value={source.name} onChange={setName} options={setup.sources.map((one) => [one.name, one.name])} />
        <Field label="Address that clients use" grow>
          <input type="url" value={address} aria-invalid={at ? undefined : 'true'} onInput={(event) => setAddress(event.currentTarget.value)} />
        </Field>
        <Field label="Write key, to fill in" grow>
          <input class="mono" value={keys[source.name] ?? ''} placeholder={PLACEHOLDER(source.name)} autocomplete="off" spellcheck={false} aria-describedby="key-help"
            onInput={(event) => setKeys({ ...keys, [source.name]: event.currentTarget.value.trim() })} />
        </Field>
      </div>
      {!setup.publicUrl && <p class="soft">A guess: set <code>[server] public_url</code> and it stands here, as SDKs are told it.</p>}
      <div class="setup">
        <nav class="sdks" aria-label="SDKs">
          {SDKS.map((one) => (
            <button key={one.id} type="button" aria-current={one.id === sdkId ? 'true' : undefined} onClick={() => setSdkId(one.id)}>{one.name}</button>
          ))}
        </nav>
        <section class="card" aria-labelledby="sdk-title">
          <div class="card-head">
            <h2 id="sdk-title">{sdk.name}</h2>
            {at && <Copy text={text} label="Copy the lines" />}
          </div>
          {at ? <pre class="code" tabindex="0" role="region" aria-label={`Lines for ${sdk.name}`}><code>{pieces(text, key)}</code></pre>
            : <p class="problem">That is no address: it begins with https:// or http://.</p>}
          {sdk.note && <p class="note-box">{sdk.note}</p>}
          <p class="note-box" id="key-help">
            <b>The write key</b> is not told by the proxy. It stands in <code>{setup.file}</code> as <code>{source.where}</code>
            {source.keys > 1 && ` (any of its ${source.keys} keys)`}: {keys[source.name] ? <>the lines hold the one typed above, which stays in this browser tab.</>
              : <>type it above, or put it in place of <mark>{key}</mark>.</>}
          </p>
          <Arrival source={source.name} sdk={sdk} />
        </section>
      </div>
    </>
  )
}

function pieces(text, key) {
  return text.split(key).flatMap((part, index) => (index ? [<mark key={index}>{key}</mark>, part] : [part]))
}

const LIBRARIES = 100 // clients may name anything

/** Waits for the SDK's first event, and says so when it is there. */
function Arrival({ source, sdk }) {
  const [seen, setSeen] = useState({}) // the first event of each library
  useEffect(() => {
    setSeen({})
    const ending = new AbortController()
    const follow = async () => {
      while (!ending.signal.aborted) {
        try {
          await lines(`api/live${query({ source })}`, { signal: ending.signal }, (line) => {
            if (line.kind !== 'event') return
            setSeen((was) => (was[line.library] || Object.keys(was).length >= LIBRARIES ? was : { ...was, [line.library]: line }))
          })
        } catch { /* tried again below */ }
        await new Promise((done) => setTimeout(done, 1500))
      }
    }
    follow()
    return () => ending.abort()
  }, [source]) // not the SDK: what comes while the feed opens anew would be missed
  const first = sdk.libraries.map((library) => seen[library]).find(Boolean)
  const other = Object.values(seen)[0]
  return (
    <p class={first ? 'arrival here' : 'arrival'} role="status">
      <span class="tick" aria-hidden="true">{first ? '✓' : ''}</span>
      {first ? <span><b>It works.</b> {first.type} {first.event && `“${first.event}” `}came in at {clock(first.at)}{first.code && `, and was set aside: ${first.code}`}.</span>
        : <span>Waiting for the first event of this SDK…{other && <small>Events of {other.library || 'something that names no SDK'} come in.</small>}</span>}
    </p>
  )
}
