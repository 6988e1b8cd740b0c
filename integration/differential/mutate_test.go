package differential

import (
	"math/rand/v2"
	"slices"
	"strings"
)

// operator is one way to change a tree below top. It reports whether it found
// something to change.
type operator struct {
	name   string
	weight int
	apply  func(r *rand.Rand, top, donor *node) bool
}

var operators = []operator{
	{"bit flip", 6, flipBit},
	{"octet", 6, changeOctet},
	{"text", 14, changeText},
	{"tag", 4, changeTag},
	{"string type", 8, changeStringType},
	{"length form", 3, changeLength},
	{"duplicate", 5, duplicate},
	{"remove", 8, remove},
	{"swap", 6, swap},
	{"reorder", 8, reorder},
	{"set order", 6, reorderSet},
	{"move", 2, move},
	{"splice", 12, splice},
	{"insert", 6, insertFromDonor},
	{"padding of identifier or integer", 3, pad},
	{"identifier", 4, changeIdentifier},
	{"trailing", 4, trail},
	{"critical", 5, toggleCritical},
	{"extension", 8, addExtension},
	{"octets", 4, changeRawOctets},
}

// mutate applies one to three operators below top.
func mutate(r *rand.Rand, top, donor *node) []string {
	total := 0
	for _, o := range operators {
		total += o.weight
	}
	var done []string
	rounds := 1
	for r.IntN(3) == 0 && rounds < 3 {
		rounds++
	}
	for tries := 0; len(done) < rounds && tries < 20; tries++ {
		at := r.IntN(total)
		for _, o := range operators {
			if at -= o.weight; at < 0 {
				if o.apply(r, top, donor) {
					done = append(done, o.name)
				}
				break
			}
		}
	}
	return done
}

// below picks a place under top that fits.
func below(r *rand.Rand, top *node, fit func(*node) bool) (place, bool) {
	list := top.places(fit)
	if len(list) > 0 && list[0].parent == nil {
		list = list[1:]
	}
	if len(list) == 0 {
		return place{}, false
	}
	return pick(r, list), true
}

func flipBit(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, func(n *node) bool { return isLeaf(n) && len(n.leaf) > 0 })
	if ok {
		p.n.leaf = slices.Clone(p.n.leaf)
		p.n.leaf[r.IntN(len(p.n.leaf))] ^= 1 << r.IntN(8)
	}
	return ok
}

func changeOctet(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, func(n *node) bool { return isLeaf(n) && len(n.leaf) > 0 && len(n.leaf) < 100 })
	if ok {
		p.n.leaf = slices.Clone(p.n.leaf)
		p.n.leaf[r.IntN(len(p.n.leaf))] = pick(r, []byte("abcXYZ019 .-@*&_=/\x00\n\x7f\x80\xff"))
	}
	return ok
}

// texts: what is honest, what is odd, what is hostile.
var texts = map[byte][]string{
	0:    {"device-7", "Example Corp", "x", "a,b=c", "ünïcode", "名前", "x*y", "a@b", "good\x00evil", "a\u202eb", "a\nb", "", " lead", "tail ", "A+B", `back\slash`, "quote\"", "#0403"},
	0x81: {"ann@example.com", "bob@mail.example.org", "a@b@c", "x", "ann@EXAMPLE.com"},
	0x82: {"host.example.com", "a.example", "*.example.com", "10.0.0.1", "UPPER.example.com", "x_y.example", "xn--bcher-kva.example"},
	0x86: {"https://example.com/a,b?c=d", "urn:uuid:1", "tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-1104", "http://user@[::1]/", "nothing", "https://example.com/%zz"},
}

func changeText(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, isText)
	if ok {
		pool := texts[p.n.id]
		if pool == nil {
			pool = texts[0]
		}
		text := pick(r, pool)
		if r.IntN(40) == 0 {
			text = strings.Repeat(text, 1+r.IntN(40))
		}
		if p.n.id == 0x1e {
			text = wideText(text)
		}
		p.n.leaf = []byte(text)
	}
	return ok
}

func wideText(s string) string {
	var b []byte
	for _, c := range s {
		b = append(b, byte(c>>8), byte(c))
	}
	return string(b)
}

func changeTag(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, nil)
	if ok {
		switch r.IntN(3) {
		case 0:
			p.n.id ^= 1 << r.IntN(8)
		case 1:
			p.n.id = pick(r, []byte{0x30, 0x31, 0x04, 0x02, 0x05, 0x06, 0x80, 0x82, 0xa0, 0xa1, 0xa2, 0x87, 0x88, 0xa4, 0x24, 0x1f, 0x9f, 0x00})
		default: // another alternative of a choice
			p.n.id = p.n.id&0xf0 | byte(r.IntN(9))
		}
	}
	return ok
}

func changeStringType(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, func(n *node) bool { return isLeaf(n) && slices.Contains(stringIDs, n.id) })
	if ok {
		old := p.n.id
		p.n.id = pick(r, stringIDs[:3+r.IntN(len(stringIDs)-2)])
		if p.n.id == 0x1e && old != 0x1e && r.IntN(2) == 0 {
			p.n.leaf = []byte(wideText(string(p.n.leaf)))
		}
	}
	return ok
}

func changeLength(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, nil)
	if ok {
		switch r.IntN(3) {
		case 0:
			p.n.extra = 1 + r.IntN(2)
		case 1:
			p.n.lie = pick(r, []int{-2, -1, 1, 2, 128})
		default:
			p.n.indefinite = true
		}
	}
	return ok
}

func hasKids(n *node) bool { return len(n.kids) > 0 }

func duplicate(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, nil)
	if ok {
		p.parent.kids = slices.Insert(p.parent.kids, p.index+r.IntN(2), p.n.clone())
	}
	return ok
}

func remove(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, nil)
	if ok {
		p.parent.kids = slices.Delete(p.parent.kids, p.index, p.index+1)
	}
	return ok
}

func swap(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, func(n *node) bool { return len(n.kids) > 1 })
	if ok {
		i, j := r.IntN(len(p.n.kids)), r.IntN(len(p.n.kids))
		p.n.kids[i], p.n.kids[j] = p.n.kids[j], p.n.kids[i]
		ok = i != j
	}
	return ok
}

func shuffle(r *rand.Rand, kids []*node) {
	r.Shuffle(len(kids), func(i, j int) { kids[i], kids[j] = kids[j], kids[i] })
}

// reorder shuffles what stands in a list of likes: RDNs, extensions, names.
func reorder(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, func(n *node) bool {
		return len(n.kids) > 1 && !slices.ContainsFunc(n.kids, func(k *node) bool { return k.id&0xc0 != n.kids[0].id&0xc0 })
	})
	if ok {
		shuffle(r, p.n.kids)
	}
	return ok
}

func reorderSet(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, isSet)
	if ok {
		shuffle(r, p.n.kids)
	}
	return ok
}

func move(r *rand.Rand, top, _ *node) bool {
	from, ok := below(r, top, nil)
	if !ok {
		return false
	}
	from.parent.kids = slices.Delete(from.parent.kids, from.index, from.index+1)
	to, ok := below(r, top, hasKids)
	if ok {
		to.n.kids = slices.Insert(to.n.kids, r.IntN(len(to.n.kids)+1), from.n)
	}
	return ok
}

// splice puts a subtree of the donor in the place of one, mostly of its like.
func splice(r *rand.Rand, top, donor *node) bool {
	p, ok := below(r, top, nil)
	if !ok {
		return false
	}
	like := func(n *node) bool { return n.id == p.n.id && n.inner == p.n.inner }
	if r.IntN(5) == 0 {
		like = nil
	}
	other, ok := below(r, donor, like)
	if ok {
		p.parent.kids[p.index] = other.n.clone()
	}
	return ok
}

// insertFromDonor puts a subtree of the donor beside one of its like.
func insertFromDonor(r *rand.Rand, top, donor *node) bool {
	p, ok := below(r, top, func(n *node) bool { return n.inner || n.id >= 0x80 })
	if !ok {
		return false
	}
	other, ok := below(r, donor, func(n *node) bool { return n.id == p.n.id || n.id&p.n.id&0x80 != 0 })
	if ok {
		p.parent.kids = slices.Insert(p.parent.kids, p.index+r.IntN(2), other.n.clone())
	}
	return ok
}

func pad(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, func(n *node) bool { return isOID(n) || n.id == 0x02 && len(n.leaf) > 0 })
	if !ok {
		return false
	}
	if p.n.id == 0x02 {
		p.n.leaf = slices.Insert(slices.Clone(p.n.leaf), 0, pick(r, []byte{0, 0xff}))
		return true
	}
	starts := []int{0}
	for i, o := range p.n.leaf[:len(p.n.leaf)-1] {
		if o < 0x80 {
			starts = append(starts, i+1)
		}
	}
	p.n.leaf = slices.Insert(slices.Clone(p.n.leaf), pick(r, starts), 0x80)
	return true
}

// changeIdentifier makes an OBJECT IDENTIFIER a neighbour of itself, or one that
// has several bounds near.
func changeIdentifier(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, isOID)
	if !ok {
		return false
	}
	leaf := slices.Clone(p.n.leaf)
	switch r.IntN(4) {
	case 0:
		leaf[len(leaf)-1] = byte(r.IntN(0x80))
	case 1:
		leaf = append(leaf, byte(r.IntN(0x80)))
	case 2: // around 2^31
		leaf = append(leaf, pick(r, []string{"\x87\xff\xff\xff\x7f", "\x88\x80\x80\x80\x00", "\x8f\xff\xff\xff\x7f", "\x90\x80\x80\x80\x00"})...)
	default: // the first two arcs
		leaf = append([]byte(pick(r, []string{"\x00", "\x27", "\x28", "\x4f", "\x50", "\x7f", "\x81\x34", "\x87\xff\xff\xff\x7f", "\x88\x80\x80\x80\x00"})), leaf[1:]...)
	}
	p.n.leaf = leaf
	return true
}

// trail adds octets that belong to nothing, or an element too many.
func trail(r *rand.Rand, top, donor *node) bool {
	p, ok := below(r, top, func(n *node) bool { return n.inner })
	if !ok {
		return false
	}
	tail := &node{raw: pick(r, [][]byte{{0}, {0, 0}, {5, 0}, {4, 1, 0x41}, {0x30, 0}, {0xff}, {0x30, 0x80, 0, 0}})}
	if other, found := below(r, donor, nil); found && r.IntN(3) == 0 {
		tail = other.n.clone()
	}
	p.n.kids = append(p.n.kids, tail)
	return true
}

func toggleCritical(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, isExtension)
	if !ok {
		return false
	}
	if len(p.n.kids) == 3 {
		if r.IntN(2) == 0 {
			p.n.kids = slices.Delete(p.n.kids, 1, 2)
		} else {
			p.n.kids[1].leaf = pick(r, [][]byte{{0}, {1}, {0xff}, {}, {0xff, 0xff}})
		}
		return true
	}
	p.n.kids = slices.Insert(p.n.kids, 1, &node{id: 0x01, leaf: pick(r, [][]byte{{0xff}, {0xff}, {0xff}, {0}, {1}})})
	return true
}

// extensionPool is what addExtension takes from.
var extensionPool = [][]byte{
	writeSequence(writeOID(keyUsage), writeOctets(keyUsageBits{0, 2}.der())),
	writeSequence(writeOID(keyUsage), writeOctets([]byte{3, 2, 0, 0xa0})), // trailing zero bits
	writeSequence(writeOID(keyUsage), writeOctets([]byte{3, 3, 7, 0, 0x80})),
	writeSequence(writeOID(extKeyUsage), writeOctets(purposeList{"1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"}.der())),
	writeSequence(writeOID(applicationPolicies), writeOctets(policyList{"1.3.6.1.5.5.7.3.2"}.der())),
	writeSequence(writeOID(ntdsSecurity), writeOctets(objectSID("S-1-5-21-1-2-3-500").der())),
	writeSequence(writeOID(templateName), writeOctets(templateText("User").der())),
	writeSequence(writeOID(templateIdentifier), writeOctets(templateValue{id: "1.3.6.1.4.1.311.21.8.1.2"}.der())),
	writeSequence(writeOID("2.5.29.19"), writeOctets(writeSequence([]byte{1, 1, 0xff}))),
	writeSequence(writeOID("2.5.29.32"), writeOctets([]byte("not DER"))),
	writeSequence(writeOID("1.2.3.4"), writeOctets(nil)),
	writeSequence(writeOID(subjectAltName), writeOctets(nameList{{tag: 2, octets: []byte("evil.example.com")}}.der())),
	writeSequence(writeOID(subjectAltName), writeOctets(nameList{
		{tag: 7, octets: []byte{10, 0, 0, 1}}, {tag: 8, typ: "1.2.3"}, {tag: 0, typ: userPrincipalName, value: tree{tag: 12, content: []byte("ann@example.com")}},
	}.der())),
}

// addExtension adds or replaces an extension.
func addExtension(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, isExtensions)
	if !ok {
		return false
	}
	added := parseNodes(pick(r, extensionPool))[0]
	same := slices.IndexFunc(p.n.kids, func(k *node) bool {
		return len(k.kids) > 0 && string(k.kids[0].leaf) == string(added.kids[0].leaf)
	})
	if same >= 0 && r.IntN(3) > 0 {
		p.n.kids[same] = added
	} else {
		p.n.kids = slices.Insert(p.n.kids, r.IntN(len(p.n.kids)+1), added)
	}
	return true
}

// changeRawOctets changes a subtree as written, its headers among it.
func changeRawOctets(r *rand.Rand, top, _ *node) bool {
	p, ok := below(r, top, func(n *node) bool { return n.inner })
	if !ok {
		return false
	}
	b := slices.Clone(p.n.bytes())
	at := r.IntN(len(b))
	switch r.IntN(3) {
	case 0:
		b[at] ^= 1 << r.IntN(8)
	case 1:
		b = slices.Delete(b, at, at+1)
	default:
		b = slices.Insert(b, at, byte(r.IntN(256)))
	}
	p.n.raw = b
	return true
}
