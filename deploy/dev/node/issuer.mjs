// An issuer of OpenID Connect on 127.0.0.1: oidc-provider with its own pages, where any password will do.
//   node issuer.mjs PORT
// Clients register themselves (RFC 7591): POST /reg. Whoever signs in as an address is known by that address, which it
// has proved unless its name begins with `unproved`; `nobody` has none.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// The packages lie in the cache, not beside this file.
const packages = createRequire(`${process.env.FRESHET_DEV_NODE}/package.json`);
const { default: Provider } = await import(pathToFileURL(packages.resolve('oidc-provider')).href);

const port = Number(process.argv[2]);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  features: { devInteractions: { enabled: true }, registration: { enabled: true } },
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  pkce: { required: () => true },
  cookies: { keys: ['development'] },
  ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 3600, IdToken: 600, Interaction: 600, Session: 3600 },
  async findAccount(_, login) {
    const address = login.includes('@') ? { email: login, email_verified: !login.startsWith('unproved') } : {};
    const name = login.split('@')[0].replace(/^./, (letter) => letter.toUpperCase());
    return { accountId: login, claims: async () => ({ sub: login, name, ...address }) };
  },
});
provider.listen(port, '127.0.0.1', () => console.log('ready'));
