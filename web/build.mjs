// Builds what the wheel carries for browsers: node web/build.mjs OUT
//
// Every entry becomes one self-contained file (dynamic imports included), with a gzip and a brotli
// copy beside it, so that nothing is compressed while serving. The licences of whatever ended up in
// a bundle go into THIRD_PARTY_LICENSES.txt; a package without one stops the build.
import { build } from 'esbuild'
import { createHash } from 'node:crypto'
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'

const here = path.dirname(fileURLToPath(import.meta.url))
const root = path.dirname(here)
const out = path.resolve(process.argv[2])

const versions = {}
const bundles = [
  { entry: 'sdk/events.js', file: 'events.min.js', package: '@ht-sdks/events-sdk-js-browser' },
  { entry: 'admin/main.jsx', file: 'admin.js', target: 'es2022' }, // and admin.css, which it imports
  { entry: 'admin/admin.html', file: 'admin.html' },
]

async function bundle({ entry, file, package: name, target = 'es2017' }) {
  const result = await build({
    absWorkingDir: root,
    entryPoints: [path.join(here, entry)],
    bundle: true,
    minify: true,
    format: 'iife',
    target,
    jsx: 'automatic',
    jsxImportSource: 'preact',
    loader: { '.html': 'copy' },
    legalComments: 'none',
    define: { 'process.env.NODE_ENV': '"production"' },
    outfile: path.join(out, file),
    metafile: true,
    write: false,
    logLevel: 'warning',
  })
  for (const { path: place, contents } of result.outputFiles) {
    // Ours have no version: what is in them says whether they changed.
    versions[path.basename(place)] = name ? await version(name) : digest(contents)
    await writeFile(place, contents)
    await writeFile(`${place}.gz`, gzipSync(contents, { level: 9 }))
    await writeFile(
      `${place}.br`,
      brotliCompressSync(contents, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }),
    )
  }
  return Object.keys(result.metafile.inputs)
}

async function version(name) {
  const about = path.join(root, 'node_modules', name, 'package.json')
  return JSON.parse(await readFile(about, 'utf8')).version
}

const digest = (contents) => createHash('sha256').update(contents).digest('hex').slice(0, 12)

function packageFolder(input) {
  const found = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input)
  return found && found[1]
}

async function licence(folder) {
  const about = JSON.parse(await readFile(path.join(root, folder, 'package.json'), 'utf8'))
  const files = await readdir(path.join(root, folder))
  const named = files.filter((name) => /^(licen[cs]e|copying|notice)/i.test(name)).sort()
  if (!about.license && named.length === 0) throw new Error(`${folder} names no licence`)
  const texts = await Promise.all(
    named.map((name) => readFile(path.join(root, folder, name), 'utf8')),
  )
  const author = typeof about.author === 'object' ? about.author.name : about.author
  const head = `${about.name} ${about.version}\nLicence: ${about.license ?? 'see below'}`
  const body = texts.length ? texts.map((text) => text.trim()).join('\n\n') : `Author: ${author}`
  return `${head}\n\n${body}\n`
}

await mkdir(out, { recursive: true })
const inputs = (await Promise.all(bundles.map(bundle))).flat()
const folders = [...new Set(inputs.map(packageFolder).filter(Boolean))].sort()
const licences = await Promise.all(folders.map(licence))
await writeFile(
  path.join(out, 'THIRD_PARTY_LICENSES.txt'),
  licences.join(`\n${'-'.repeat(78)}\n\n`),
)

await writeFile(path.join(out, 'versions.json'), `${JSON.stringify(versions)}\n`)
