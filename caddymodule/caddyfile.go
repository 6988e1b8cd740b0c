package caddymodule

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/scepgate/scepgate/gate"
)

func init() { httpcaddyfile.RegisterGlobalOption("scep", parseGlobalOption) }

// parseGlobalOption parses the global option `scep`.
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		return nil, d.Err("scep: stands twice")
	}
	app := new(App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "scep", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile sets up the app from Caddyfile tokens. Syntax:
//
//	scep {
//		store badger {
//			path                <folder>
//			encryption_key_file <file>
//		}
//		challenge_key_file <file>
//		profile <name> {
//			challenge gateway|ndes_one_time|ndes_static|matcher {
//				ttl           <duration>
//				password_file <file>
//			}
//			ra <name> {
//				certificate   <file>
//				key           <file>
//				password_file <file>
//				upstream      <host:port>
//			}
//			ca_certificate         <file>...
//			ra_signing_certificate <file>...
//			refusal signed [<certificate> <key>]
//			refusal http_403
//			templates {
//				signature       <name> [<oid>]
//				encryption      <name> [<oid>]
//				general_purpose <name> [<oid>]
//			}
//			defaults {
//				key_usage     <bit>...
//				ext_key_usage <name|oid>...
//			}
//			algorithms [legacy] {
//				digest       <name>...
//				cipher       <name>...
//				min_rsa_bits <number>
//			}
//			allow patterns
//			max_mismatches <number>
//			renewal off
//			renewal {
//				window          <percent>%|<duration>
//				require_new_key
//				ext_key_usage   <name|oid>...
//				ca_drops        <type>...
//				crl             <url|file>...
//				registration    none|required
//			}
//			retry_window <duration>
//			in_doubt_release off|<duration>
//			matcher <module> [<args>...] {
//				name    <name>
//				decides subject|san|sid|key_usage|ext_key_usage|challenge...
//				timeout <duration>
//				reveal  challenge
//				<option of the module>...
//			}
//			mode enforce
//			mode observe until <date>
//		}
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // option name
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(once)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if option != "profile" {
			if err := seen.option(d); err != nil {
				return err
			}
		}
		var err error
		switch option {
		case "store":
			err = a.unmarshalStore(d)
		case "challenge_key_file":
			a.ChallengeKeyFile, err = oneArg(d)
		case "profile":
			err = a.unmarshalProfile(d)
		default:
			err = d.Errf("scep: unrecognized option: %s", option)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *App) unmarshalStore(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	engine := d.Val()
	if engine == "etcd" {
		return notAvailable(d, "store etcd")
	}
	id := "scep.stores." + engine
	if _, err := caddy.GetModule(id); err != nil {
		return d.Errf("store: unknown engine: %s", engine)
	}
	module, err := caddyfile.UnmarshalModule(d, id)
	if err != nil {
		return err
	}
	a.StoreRaw = caddyconfig.JSONModuleObject(module, "engine", engine, nil)
	return nil
}

func (a *App) unmarshalProfile(d *caddyfile.Dispenser) error {
	name, err := oneArg(d)
	if err != nil {
		return err
	}
	if !namePattern.MatchString(name) {
		return d.Errf("profile: name %q must be up to 64 letters, digits, '_', '.' or '-'", name)
	}
	if a.Profiles[name] != nil {
		return d.Errf("profile %s: stands twice", name)
	}
	if a.Profiles == nil {
		a.Profiles = make(map[string]*Profile)
	}
	p := new(Profile)
	a.Profiles[name] = p
	if err := p.UnmarshalCaddyfile(d); err != nil {
		return err
	}
	if err := p.check(); err != nil {
		return d.Errf("profile %s: %v", name, err) // at the end of its block
	}
	return nil
}

// check finds what Provision would refuse in what is written, without any file,
// so that the error has a line. A profile with placeholders is Provision's alone.
func (p *Profile) check() error {
	raw, err := json.Marshal(p)
	if err != nil || bytes.Contains(raw, []byte("{env.")) || bytes.Contains(raw, []byte("{file.")) {
		return err
	}
	written := new(Profile)
	if err := json.Unmarshal(raw, written); err != nil {
		return err
	}
	_, err = written.normalize(func(string, *string) error { return nil }, time.Now())
	return err
}

// UnmarshalCaddyfile sets up the profile from the block that the dispenser
// stands before. Syntax: see [App.UnmarshalCaddyfile].
func (p *Profile) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	seen := make(once)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if option != "ra" && option != "matcher" {
			if err := seen.option(d); err != nil {
				return err
			}
		}
		var err error
		switch option {
		case "challenge":
			err = p.unmarshalChallenge(d)
		case "ra":
			err = p.unmarshalRA(d)
		case "ca_certificate":
			p.CACertificate, err = someArgs(d)
		case "ra_signing_certificate":
			p.RASigningCertificate, err = someArgs(d)
		case "refusal":
			err = p.unmarshalRefusal(d)
		case "templates":
			err = p.unmarshalTemplates(d)
		case "defaults":
			err = p.unmarshalDefaults(d)
		case "algorithms":
			err = p.unmarshalAlgorithms(d)
		case "allow":
			err = p.unmarshalAllow(d)
		case "max_mismatches":
			var n int
			n, err = number(d)
			p.MaxMismatches = &n
		case "renewal":
			err = p.unmarshalRenewal(d)
		case "mode":
			err = p.unmarshalMode(d)
		case "retry_window":
			p.RetryWindow = new(caddy.Duration)
			*p.RetryWindow, err = duration(d, checkRetryWindow)
		case "in_doubt_release":
			p.InDoubtRelease, err = duration(d, checkInDoubtRelease, "off")
		case "matcher":
			err = p.unmarshalMatcher(d)
		default:
			err = d.Errf("profile: unrecognized option: %s", option)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *Profile) unmarshalChallenge(d *caddyfile.Dispenser) error {
	source, err := oneArg(d)
	if err != nil {
		return err
	}
	switch source {
	case string(gate.SourceGateway), string(gate.SourceNDESOneTime), string(gate.SourceNDESStatic), string(gate.SourceMatcher):
	default:
		return d.Errf("challenge: unknown source: %s", source)
	}
	p.Challenge = &Challenge{Source: source}
	seen := make(once)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if err := seen.option(d); err != nil {
			return err
		}
		switch {
		case option == "ttl":
			ttl, err := oneArg(d)
			if err != nil {
				return err
			}
			duration, err := caddy.ParseDuration(ttl)
			if err != nil || duration <= 0 || duration > maxTTL {
				return d.Errf("challenge ttl: %q is not a duration of at most 30 days", ttl)
			}
			p.Challenge.TTL = caddy.Duration(duration)
		case option == "password_file" && source == string(gate.SourceNDESStatic):
			if p.Challenge.PasswordFile, err = oneArg(d); err != nil {
				return err
			}
		default:
			return d.Errf("challenge %s: unrecognized option: %s", source, option)
		}
	}
	if source == string(gate.SourceNDESStatic) && p.Challenge.PasswordFile == "" {
		return d.Err("challenge ndes_static: password_file is missing")
	}
	return nil
}

func (p *Profile) unmarshalRA(d *caddyfile.Dispenser) error {
	name, err := oneArg(d)
	if err != nil {
		return err
	}
	for _, other := range p.RA {
		if other.Name == name {
			return d.Errf("ra %s: stands twice", name)
		}
	}
	ra := &RA{Name: name}
	p.RA = append(p.RA, ra)
	seen := make(once)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if err := seen.option(d); err != nil {
			return err
		}
		switch option {
		case "certificate":
			ra.Certificate, err = oneArg(d)
		case "key":
			ra.Key, err = oneArg(d)
		case "password_file":
			ra.PasswordFile, err = oneArg(d)
		case "upstream":
			ra.Upstream, err = oneArg(d)
			if err == nil && !strings.Contains(ra.Upstream, "{") {
				if bad := checkHostPort(ra.Upstream); bad != nil {
					err = d.Errf("ra %s upstream: %v", name, bad)
				}
			}
		default:
			err = d.Errf("ra %s: unrecognized option: %s", name, option)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case ra.Certificate == "":
		return d.Errf("ra %s: certificate is missing", name)
	case ra.Key == "":
		return d.Errf("ra %s: key is missing", name)
	}
	return nil
}

func (p *Profile) unmarshalRefusal(d *caddyfile.Dispenser) error {
	args, err := someArgs(d)
	if err != nil {
		return err
	}
	p.Refusal = &Refusal{Kind: args[0]}
	switch {
	case args[0] == refusalSigned && len(args) == 3:
		p.Refusal.Certificate, p.Refusal.Key = args[1], args[2]
	case args[0] == refusalSigned && len(args) == 1, args[0] == refusalHTTP403 && len(args) == 1:
	case args[0] == refusalSigned, args[0] == refusalHTTP403:
		return d.ArgErr()
	default:
		return d.Errf("refusal: unknown kind: %s", args[0])
	}
	return noBlock(d)
}

func (p *Profile) unmarshalTemplates(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	p.Templates = new(Templates)
	seen := make(once)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		kind := d.Val()
		if err := seen.option(d); err != nil {
			return err
		}
		var slot **Template
		switch kind {
		case "signature":
			slot = &p.Templates.Signature
		case "encryption":
			slot = &p.Templates.Encryption
		case "general_purpose":
			slot = &p.Templates.GeneralPurpose
		default:
			return d.Errf("templates: unrecognized option: %s", kind)
		}
		args, err := someArgs(d)
		if err != nil {
			return err
		}
		if len(args) > 2 {
			return d.ArgErr()
		}
		*slot = &Template{Name: args[0]}
		if len(args) == 2 {
			(*slot).OID = args[1]
		}
	}
	return nil
}

func (p *Profile) unmarshalDefaults(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	p.Defaults = new(Defaults)
	seen := make(once)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if err := seen.option(d); err != nil {
			return err
		}
		var err error
		switch option {
		case "key_usage":
			p.Defaults.KeyUsage, err = someArgs(d)
		case "ext_key_usage":
			p.Defaults.ExtKeyUsage, err = someArgs(d)
		default:
			err = d.Errf("defaults: unrecognized option: %s", option)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *Profile) unmarshalAlgorithms(d *caddyfile.Dispenser) error {
	p.Algorithms = new(Algorithms)
	for _, word := range d.RemainingArgs() {
		if word != "legacy" || p.Algorithms.Legacy {
			return d.Errf("algorithms: unrecognized word: %s", word)
		}
		p.Algorithms.Legacy = true
	}
	seen := make(once)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if err := seen.option(d); err != nil {
			return err
		}
		var err error
		switch option {
		case "digest":
			p.Algorithms.Digest, err = words(d, "algorithms digest", knownDigests, neverDigests)
		case "cipher":
			p.Algorithms.Cipher, err = words(d, "algorithms cipher", knownCiphers, neverCiphers)
		case "min_rsa_bits":
			p.Algorithms.MinRSABits, err = number(d)
			if err == nil && (p.Algorithms.MinRSABits < legacyMinRSABits || p.Algorithms.MinRSABits > maxMinRSABits) {
				err = d.Errf("algorithms min_rsa_bits: must be from %d to %d", legacyMinRSABits, maxMinRSABits)
			}
		default:
			err = d.Errf("algorithms: unrecognized option: %s", option)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *Profile) unmarshalAllow(d *caddyfile.Dispenser) (err error) {
	if p.Allow, err = words(d, "allow", []string{allowPatterns}, nil); err != nil {
		return err
	}
	return noBlock(d)
}

func (p *Profile) unmarshalMode(d *caddyfile.Dispenser) error {
	args, err := someArgs(d)
	if err != nil {
		return err
	}
	switch {
	case len(args) == 1 && args[0] == modeEnforce:
		p.Mode = &Mode{Kind: modeEnforce}
	case len(args) == 3 && args[0] == modeObserve && args[1] == "until":
		if _, err := parseUntil(args[2]); err != nil {
			return d.Errf("mode observe until: %v", err)
		}
		p.Mode = &Mode{Kind: modeObserve, Until: args[2]}
	case args[0] == modeObserve:
		return d.Err("mode observe: needs an end: mode observe until <date>")
	case args[0] == modeEnforce:
		return d.ArgErr()
	default:
		return d.Errf("mode: unknown mode: %s", args[0])
	}
	return noBlock(d)
}

// once refuses an option that stands twice: the later one would silently win.
type once map[string]bool

func (o once) option(d *caddyfile.Dispenser) error {
	if o[d.Val()] {
		return d.Errf("%s: stands twice", d.Val())
	}
	o[d.Val()] = true
	return nil
}

// notAvailable refuses what the documentation names but this version has not:
// ignoring it would leave a gate open that the operator believes shut.
func notAvailable(d *caddyfile.Dispenser, option string) error {
	return d.Errf("%s is not available in this version", option)
}

// oneArg reads exactly one argument that is not empty, as one is that comes
// from an environment variable without a value. A block may follow.
func oneArg(d *caddyfile.Dispenser) (string, error) {
	args, err := someArgs(d)
	if err != nil {
		return "", err
	}
	if len(args) != 1 {
		return "", d.ArgErr()
	}
	return args[0], nil
}

// someArgs reads one or more arguments, none of them empty.
func someArgs(d *caddyfile.Dispenser) ([]string, error) {
	option := d.Val()
	args := d.RemainingArgs()
	if len(args) == 0 {
		return nil, d.Errf("%s: has no value", option)
	}
	for _, arg := range args {
		if strings.TrimSpace(arg) == "" {
			return nil, d.Errf("%s: is empty", option)
		}
	}
	return args, nil
}

func number(d *caddyfile.Dispenser) (int, error) {
	option := d.Val()
	arg, err := oneArg(d)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(arg)
	if err != nil || n < 1 {
		return 0, d.Errf("%s: %q is not a positive number", option, arg)
	}
	return n, nil
}

// duration reads one duration that check accepts, or a word that means zero.
func duration(d *caddyfile.Dispenser, check func(time.Duration) error, zero ...string) (caddy.Duration, error) {
	option := d.Val()
	arg, err := oneArg(d)
	if err != nil {
		return 0, err
	}
	if slices.Contains(zero, arg) {
		return 0, noBlock(d)
	}
	parsed, err := caddy.ParseDuration(arg)
	if err != nil {
		return 0, d.Errf("%s: %q is not a duration", option, arg)
	}
	if err := check(parsed); err != nil {
		return 0, d.Errf("%v", err)
	}
	return caddy.Duration(parsed), noBlock(d)
}

func words(d *caddyfile.Dispenser, option string, known, never []string) ([]string, error) {
	args, err := someArgs(d)
	if err != nil {
		return nil, err
	}
	if err := checkWords(option, args, known, never); err != nil {
		return nil, d.Errf("%v", err)
	}
	return args, nil
}

func noBlock(d *caddyfile.Dispenser) error {
	for d.NextBlock(d.Nesting()) {
		return d.Errf("unrecognized option: %s", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*App)(nil)
	_ caddyfile.Unmarshaler = (*Profile)(nil)
)
