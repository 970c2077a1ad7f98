// The stories of signing in, in Chromium; `deploy/dev/browser-test` starts what they need.
//   node browser-test.mjs URL
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';

const packages = createRequire(`${process.env.FRESHET_DEV_NODE}/package.json`);
const { chromium } = packages('playwright-core');

const url = process.argv[2];
const issuer = process.env.FRESHET_TEST_ISSUER;
const screens = process.env.FRESHET_DEV_SCREENS;
const password = 'violet tractor mumbling 9';
// Addresses of a run are its own: mail of an earlier run is not taken for this one's.
const run = randomBytes(3).toString('hex');
const address = (name) => `${name}.${run}@acme.example`;

const browser = await chromium.launch({
  executablePath: process.env.FRESHET_DEV_BROWSER,
  // Root has no sandbox, and the pages are our own. The issuer's would fetch a font from elsewhere, and wait for it.
  args: [
    ...(process.getuid() === 0 ? ['--no-sandbox'] : []),
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
  ],
});
const violations = [];

/** Somebody with a browser of their own. Pages have no script, and so it is off. */
async function somebody() {
  const context = await browser.newContext({ viewport: { width: 1100, height: 820 }, javaScriptEnabled: false });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on('console', (message) => {
    if (/content security policy/i.test(message.text()) && page.url().startsWith(url)) violations.push(message.text());
  });
  return page;
}

let shots = 0;
/** The page in light and in dark. */
async function shot(page, name, schemes = ['light', 'dark']) {
  shots += 1;
  for (const colorScheme of schemes) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: `${screens}/${String(shots).padStart(2, '0')}-${name}-${colorScheme}.png` });
  }
}

async function story(name, tell) {
  const since = Date.now();
  try {
    await tell();
  } catch (error) {
    for (const context of browser.contexts()) {
      for (const page of context.pages()) console.error(`${page.url()}\n${await page.content().catch(() => '')}`);
    }
    throw new Error(`${name}: ${error.message}`, { cause: error });
  }
  console.log(`${name}: ${((Date.now() - since) / 1000).toFixed(1)} s`);
}

const freshet = (...words) => execFileSync(process.env.FRESHET_DEV_PROGRAM, words, { encoding: 'utf8' }).trim();

/** The link in the newest mail to somebody that has a text in it. */
async function mailed(to, text) {
  const folder = `${process.env.FRESHET_TEST_MAIL}/${to}`;
  for (let tick = 0; tick < 200; tick += 1) {
    for (const name of existsSync(folder) ? readdirSync(folder).sort().reverse() : []) {
      if (name.startsWith('.')) continue;
      const mail = readFileSync(`${folder}/${name}`, 'utf8').replace(/=\r?\n/g, '').replace(/=3D/g, '=');
      if (mail.includes(text)) return mail.match(/http:\/\/127\.0\.0\.1\S+/)?.[0] ?? mail;
    }
    await sleep(50);
  }
  throw new Error(`no mail to ${to} with ${text}`);
}

/** A code of the second factor (RFC 6238), for the step that comes `ahead` after this one. */
function codeOf(secret, ahead = 0) {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  const bits = [...secret].map((letter) => alphabet.indexOf(letter).toString(2).padStart(5, '0')).join('');
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + ahead));
  const mac = createHmac('sha1', key).update(step).digest();
  return String((mac.readUInt32BE(mac[19] & 15) & 0x7fffffff) % 1_000_000).padStart(6, '0');
}

const heading = (page) => page.locator('h1').innerText();
async function fill(page, fields, button) {
  for (const [label, text] of Object.entries(fields)) await page.getByLabel(label, { exact: true }).fill(text);
  await page.getByRole('button', { name: button, exact: true }).click();
}
const signIn = async (page, email, word = password) => {
  await page.goto(`${url}/sign-in`);
  await fill(page, { Address: email, Password: word }, 'Sign in');
};
const signOut = (page) => page.getByRole('button', { name: 'Sign out' }).click();

/** Signs in on the issuer's own pages, and lets Freshet know. */
async function atIssuer(page, login) {
  await page.waitForURL(`${issuer}/**`);
  if (await page.getByPlaceholder('Enter any login').count()) {
    await page.getByPlaceholder('Enter any login').fill(login);
    await page.getByPlaceholder('and password').fill('any');
    await shot(page, 'issuer-sign-in', ['light']);
    await page.getByRole('button', { name: 'Sign-in' }).click();
  }
  await page.waitForLoadState();
  if (page.url().startsWith(issuer)) {
    await shot(page, 'issuer-consent', ['light']);
    await page.getByRole('button', { name: 'Continue' }).click();
  }
  await page.waitForURL(`${url}/**`);
}

let token;
/** Asks the API, as Ada. */
async function api(method, path, body, headers = {}) {
  const answer = await fetch(`${url}/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...headers },
    body: body && JSON.stringify(body),
  });
  const text = await answer.text();
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
  return { etag: answer.headers.get('etag'), ...(text && JSON.parse(text)) };
}

const ada = await somebody();
const bob = await somebody();
let secret;
let codes;
let connection;

await story('set-up', async () => {
  await ada.goto(url);
  assert.equal(await heading(ada), 'Set up Freshet');
  await shot(ada, 'set-up');
  const word = freshet('user', 'set-up-word');
  await fill(ada, {
    'Set-up word': word, 'Your address': address('ada'), 'Your name': 'Ada', Password: password, Organization: 'Acme',
  }, 'Set up');
  assert.equal(await heading(ada), 'Good to see you, Ada');
  await shot(ada, 'start');
});

await story('password', async () => {
  await signOut(ada);
  await signIn(ada, address('ada'), 'not the password');
  assert.ok(await ada.getByRole('alert').isVisible());
  await shot(ada, 'sign-in-refused');
  await signIn(ada, address('ada'));
  assert.equal(await heading(ada), 'Good to see you, Ada');
});

await story('second factor', async () => {
  await ada.goto(`${url}/account`);
  await ada.getByRole('link', { name: 'Add a second factor' }).click();
  secret = await ada.locator('code.secret').innerText();
  await shot(ada, 'second-factor');
  await fill(ada, { 'The six digits that it shows': codeOf(secret) }, 'Turn it on');
  codes = await ada.locator('.codes code').allInnerTexts();
  assert.equal(codes.length, 10);
  await shot(ada, 'recovery-codes');
  await ada.getByRole('link', { name: 'I have kept them' }).click();
  await signOut(ada);
  await signIn(ada, address('ada'));
  assert.equal(await heading(ada), 'Second factor');
  await shot(ada, 'second-factor-asked');
  // A code is good once: this is the next one, which is taken already.
  await fill(ada, { Code: codeOf(secret, 1) }, 'Go on');
  assert.equal(await heading(ada), 'Good to see you, Ada');
});

await story('personal token', async () => {
  await ada.goto(`${url}/account`);
  await fill(ada, { 'What it is for': 'stories' }, 'Make a token');
  token = await ada.locator('code.secret').innerText();
  assert.match(token, /^fr_user_/);
});

await story('invitation by mail', async () => {
  await api('POST', '/invitations', { email: address('bob'), role: 'editor' });
  await bob.goto(await mailed(address('bob'), 'You are invited to Acme'));
  assert.equal(await heading(bob), 'Join Acme');
  await shot(bob, 'invitation');
  await fill(bob, { 'Your name': 'Bob', Password: password }, 'Join');
  assert.equal(await heading(bob), 'Good to see you, Bob');
  // It is good once.
  const carl = await somebody();
  await carl.goto(await mailed(address('bob'), 'You are invited to Acme'));
  assert.match(await carl.locator('main').innerText(), /was used/);
  await shot(carl, 'invitation-reused');
  await carl.context().close();
});

await story('reset by mail', async () => {
  const dora = await somebody();
  await dora.goto(`${url}/sign-in`);
  await dora.getByRole('link', { name: 'Forgot your password?' }).click();
  await fill(dora, { Address: address('bob') }, 'Send the link');
  await shot(dora, 'reset-sent');
  await dora.goto(await mailed(address('bob'), 'reset your password'));
  await shot(dora, 'reset');
  await fill(dora, { 'New password': 'another tractor mumbling 9' }, 'Change the password');
  await signIn(dora, address('bob'), 'another tractor mumbling 9');
  assert.equal(await heading(dora), 'Good to see you, Bob');
  // Whoever had the old one is out.
  await bob.goto(`${url}/account`);
  assert.equal(await heading(bob), 'Sign in');
  await dora.context().close();
  await signIn(bob, address('bob'), 'another tractor mumbling 9');
});

await story('an issuer, there and back', async () => {
  const client = await (await fetch(`${issuer}/reg`, {
    method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ redirect_uris: [`${url}/sso/callback`], client_name: 'Freshet' }),
  })).json();
  freshet('domain', 'verify', 'acme', 'acme.example');
  connection = await api('POST', '/sso-connections', {
    name: "Acme's own sign-in", kind: 'oidc', issuer, client_id: client.client_id, client_secret: client.client_secret,
    domains: ['acme.example'], default_role: 'viewer',
  });

  const eve = await somebody();
  await eve.goto(`${url}/account`);
  await shot(eve, 'sign-in');
  await eve.getByRole('link', { name: 'Sign in with your organization' }).click();
  await shot(eve, 'organization');
  await fill(eve, { Address: address('eve') }, 'Go on');
  await atIssuer(eve, address('eve'));
  assert.equal(await heading(eve), 'Your account');
  assert.match(await eve.locator('main').innerText(), new RegExp(`${issuer}[\\s\\S]*${address('eve')}`));
  await shot(eve, 'account-of-an-issuer');
  await eve.goto(url);
  assert.match(await eve.locator('main').innerText(), /viewer/);
  await eve.context().close();

  // Who turns back there is told so; and whose address is not proved.
  const finn = await somebody();
  await finn.goto(`${url}/sso/start?organization=acme`);
  await finn.getByRole('link', { name: /cancel/i }).click();
  await finn.waitForURL(`${url}/**`);
  assert.equal(await heading(finn), 'You are not signed in');
  await shot(finn, 'turned-back');
  await finn.getByRole('link', { name: 'Start once more' }).click();
  await fill(finn, { Address: address('finn') }, 'Go on');
  await atIssuer(finn, `unproved.${address('finn')}`);
  assert.match(await finn.locator('main').innerText(), /address is proved/);
  await finn.goto(`${url}/sso`);
  await fill(finn, { Address: 'finn@elsewhere.example' }, 'Go on');
  assert.match(await finn.getByRole('alert').innerText(), /no organization here/i);
  await shot(finn, 'organization-unknown');
  await finn.context().close();
});

await story('linking by an act of one\'s own', async () => {
  await ada.goto(`${url}/account`);
  await ada.getByRole('button', { name: /^Link Acme's own sign-in/ }).click();
  await atIssuer(ada, address('ada'));
  assert.equal(await heading(ada), 'Your account');
  assert.match(await ada.locator('#identities-part + div').innerText(), new RegExp(address('ada')));
  await ada.locator('#identities-part').scrollIntoViewIfNeeded();
  await shot(ada, 'identities');
});

await story('an issuer\'s word alone', async () => {
  const { user } = await api('GET', '/me');
  const { etag } = await api('GET', `/sso-connections/${connection.id}`);
  const patch = { enforce: true, break_glass_user_id: user.id };
  await api('PATCH', `/sso-connections/${connection.id}`, patch, { 'if-match': etag });

  // Bob's session by password opens Acme no more, and a new one does not come to be; the issuer's word does both.
  await bob.goto(url);
  const way = bob.getByRole('link', { name: 'Sign in with Acme' });
  await way.waitFor();
  await shot(bob, 'start-wants-the-issuer');
  const refused = await fetch(`${url}/v1/me`, { headers: { authorization: `Bearer ${token}` } });
  assert.equal(refused.status, 403);
  await signOut(bob);
  await signIn(bob, address('bob'), 'another tractor mumbling 9');
  await atIssuer(bob, address('bob'));
  assert.equal(await heading(bob), 'Good to see you, Bob');
  assert.equal(await way.count(), 0);
});

await story('broken glass', async () => {
  const glass = await somebody();
  await signIn(glass, address('ada'));
  await fill(glass, { Code: codes[0] }, 'Go on');
  assert.equal(await heading(glass), 'Good to see you, Ada');
  assert.equal(await glass.getByRole('link', { name: 'Sign in with Acme' }).count(), 0);
  await mailed(address('ada'), 'by password, past the issuer');
  await glass.goto(`${url}/account`);
  await glass.getByRole('button', { name: 'Remove it' }).click();
  assert.match(await glass.getByRole('alert').innerText(), /second factor/);
  await shot(glass, 'glass-keeps-its-factor');
});

await story('narrow screen', async () => {
  await bob.setViewportSize({ width: 390, height: 800 });
  for (const [path, name] of [['/', 'start'], ['/account', 'account'], ['/sso', 'organization']]) {
    await bob.goto(`${url}${path}`);
    await shot(bob, `narrow-${name}`);
    const wide = await bob.locator('html').evaluate((html) => html.scrollWidth > html.clientWidth);
    assert.equal(wide, false, `${path} is wider than the screen`);
  }
});

await browser.close();
assert.deepEqual(violations, []);
console.log(`every story holds; ${shots} screens in ${screens}`);
