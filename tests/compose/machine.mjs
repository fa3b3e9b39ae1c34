// machine.mjs -- podman on Debian 12 without any registry of images: settings that work as root in a virtual
// machine or a container, a storage of its own that goes with clear(), and debian:12 made by debootstrap
// from the mirrors that this machine's apt uses.
import { spawn } from 'node:child_process';
import { createWriteStream, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const PACKAGES = ['podman', 'runc', 'podman-compose', 'netavark', 'aardvark-dns', 'iptables', 'debootstrap', 'openssl'];
// What any machine grants: above its hard limits, which root in a container may not raise, no container starts.
const LIMITS = { nofile: '20000:20000', nproc: '10000:10000' };
const CA_DIR = 'usr/local/share/ca-certificates';

export class Machine {
  /** dir: for all that is made. What the programs say goes to the file log. */
  constructor(dir, log) {
    this.dir = dir;
    mkdirSync(join(dir, 'networks'), { recursive: true });
    mkdirSync(join(dir, 'empty'), { recursive: true });
    this.log = createWriteStream(log);
    this.env = {
      ...process.env,
      CONTAINERS_CONF: join(dir, 'containers.conf'),
      CONTAINERS_STORAGE_CONF: join(dir, 'storage.conf'),
      NOFILE: LIMITS.nofile.split(':')[0],
    };
    const limits = Object.entries(LIMITS).map(([name, value]) => `${name}=${value}`);
    // For podman-compose. Who sets one limit gets podman's own for the others. Aardvark loses questions while containers come and
    // go, and glibc repeats them after 5 s.
    const more = [...limits.map((limit) => `--ulimit ${limit}`), '--dns-opt timeout:1'];
    this.runArgs = `--podman-run-args=${more.join(' ')}`;
    // crun refuses machines that mount both versions of cgroups; without systemd there is only cgroupfs.
    writeFileSync(
      this.env.CONTAINERS_CONF,
      `[containers]\ndefault_ulimits = ${JSON.stringify(limits)}\n` +
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n' +
        `[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "${dir}/networks"\n`,
    );
    writeFileSync(
      this.env.CONTAINERS_STORAGE_CONF,
      `[storage]\ndriver = "overlay"\ngraphroot = "${dir}/storage"\nrunroot = "${dir}/run"\n`,
    );
  }

  /** Runs a program. Resolves to what it said on stdout; rejects when it fails, unless mayFail. */
  run(file, args, { input = '', cwd, env = {}, mayFail = false } = {}) {
    this.log.write(`+ ${[file, ...args].join(' ').slice(0, 500)}\n`);
    return new Promise((resolve, reject) => {
      const child = spawn(file, args, { cwd, env: { ...this.env, ...env } });
      const said = { out: '', all: '' };
      const hear = (data) => {
        said.all += data;
        this.log.write(data);
      };
      child.stdout.on('data', (data) => (said.out += data));
      child.stdout.on('data', hear);
      child.stderr.on('data', hear);
      child.stdin.on('error', () => {}); // it may not want to know
      child.stdin.end(input);
      child.on('error', reject);
      child.on('close', (code) => {
        if (code === 0 || mayFail) resolve(said.out.trim());
        else reject(new Error(`${file} ${args.slice(0, 2).join(' ')}: status ${code}\n${said.all.slice(-2000)}`));
      });
    });
  }

  podman(...args) {
    return this.run('podman', args);
  }

  async installPackages() {
    const args = ['-W', '-f', '${Package}=${db:Status-Status}\n', ...PACKAGES];
    const known = (await this.run('dpkg-query', args, { mayFail: true })).split('\n');
    const missing = PACKAGES.filter((name) => !known.includes(`${name}=installed`));
    if (missing.length === 0) return;
    const apt = (...what) =>
      this.run('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=600', ...what], {
        env: { DEBIAN_FRONTEND: 'noninteractive' },
      });
    await apt('update');
    await apt('install', '-y', '--no-install-recommends', ...missing);
  }

  async hasImage(name) {
    return (await this.podman('images', '-q', name)) !== '';
  }

  /** The image debian:12, with this machine's settings of apt and the CAs that it trusts besides the usual ones. */
  async makeBase(name) {
    const root = join(this.dir, 'base');
    const format = '$(ORIGIN)|$(CODENAME)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)';
    const sources = (await this.run('apt-get', ['indextargets', '--format', format, 'Created-By: Packages']))
      .split('\n')
      .map((line) => line.split('|'))
      .filter(([origin, codename]) => origin === 'Debian' && codename.startsWith('bookworm'));
    const mirror = sources.find(([, codename]) => codename === 'bookworm')?.[2].split(' ')[1];
    if (!mirror) throw new Error('apt knows no mirror of bookworm here');
    rmSync(root, { recursive: true, force: true });
    await this.run('nice', ['-n', '10', 'debootstrap', '--variant=minbase', 'bookworm', root, mirror]);
    writeFileSync(join(root, 'etc/apt/sources.list'), `${sources.map(([, , line]) => line).join('\n')}\n`);
    const settings = (await this.run('apt-config', ['dump'])).split('\n').filter((line) => /^Acquire::/.test(line));
    writeFileSync(join(root, 'etc/apt/apt.conf.d/90host'), `${settings.join('\n')}\n`);
    await this.run('cp', ['-rT', `/${CA_DIR}`, join(root, CA_DIR)], { mayFail: true });
    const pack = `rm -rf var/lib/apt/lists/* var/cache/apt/*; tar -c . | podman import -q -c 'CMD ["bash"]' - ${name}`;
    await this.run('sh', ['-c', pack], { cwd: root });
    rmSync(root, { recursive: true });
  }

  /** context: a folder with its Dockerfile; or text: a Dockerfile that needs nothing else. */
  async build(name, { text, context = join(this.dir, 'empty') }) {
    if (text) writeFileSync(join(context, 'Dockerfile'), text);
    // Not in OCI's format, which knows no HEALTHCHECK. On the host's network, as a mirror may have a name only there.
    const args = ['build', '--format', 'docker', '--network', 'host', '-t', name, context];
    await this.run('nice', ['-n', '10', 'podman', ...args]);
  }

  /** Where a container listens: "ADDRESS" in its network. */
  address(container) {
    return this.podman('inspect', '-f', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}', container);
  }

  /** Removes containers, networks and volumes; images too, unless they are kept for the next run. */
  async clear({ images }) {
    const all = async (...list) => (await this.podman(...list)).split('\n').filter(Boolean);
    const containers = await all('ps', '-aq');
    if (containers.length) await this.podman('rm', '-f', '-t', '0', ...containers);
    for (const name of await all('volume', 'ls', '-q')) await this.podman('volume', 'rm', '-f', name);
    for (const name of await all('network', 'ls', '-q')) if (name !== 'podman') await this.podman('network', 'rm', name);
    if (!images) return;
    const ids = await all('images', '-aq');
    if (ids.length) await this.podman('rmi', '-f', ...new Set(ids));
    rmSync(this.dir, { recursive: true, force: true });
  }
}
