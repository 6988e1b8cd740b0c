package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/pluginstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// over is a matcher over a file of this text.
func over(t *testing.T, text string) (*inventory, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "inventory.csv")
	write(t, file, text)
	i := new(inventory)
	if err := i.Configure(t.Context(), map[string]string{"file": file}); err != nil {
		t.Fatal(err)
	}
	return i, file
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func example(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "inventory.csv"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// asks is a request for a CN within Example Corp, and "type:value" names.
func asks(cn string, san ...string) plugins.Request {
	r := plugins.Request{Profile: "wifi", Decides: []plugins.Field{plugins.Subject, plugins.SAN}}
	r.Facts.Subject = [][]plugins.NameAttribute{{{Type: "2.5.4.10", Value: "Example Corp"}}, {{Type: "2.5.4.3", Value: cn}}}
	for _, s := range san {
		kind, value, _ := strings.Cut(s, ":")
		r.Facts.SAN = append(r.Facts.SAN, plugins.AltName{Type: kind, Value: value})
	}
	return r
}

func honest() []plugins.Request {
	return []plugins.Request{
		asks("C02XK1", "dns:c02xk1.example.com"),
		asks("C02XK2", "dns:C02XK2-usb.example.com", "upn:ann@example.com", "dns:c02xk2.example.com"),
	}
}

func TestItKeepsTheRulesForMatchers(t *testing.T) {
	for name, wrap := range map[string]func(*testing.T, plugins.Matcher) plugins.Matcher{
		"in process":      func(_ *testing.T, m plugins.Matcher) plugins.Matcher { return m },
		"behind the wire": func(t *testing.T, m plugins.Matcher) plugins.Matcher { return pluginstest.Serve(t, m) },
	} {
		t.Run(name, func(t *testing.T) {
			pluginstest.Run(t, func(t *testing.T) plugins.Matcher {
				i, _ := over(t, example(t))
				return wrap(t, i)
			}, honest()...)
		})
	}
}

func TestOnlyAnActiveDeviceWithExactlyItsNamesIsAgreedTo(t *testing.T) {
	i, _ := over(t, example(t))
	twoCNs := asks("C02XK1", "dns:c02xk1.example.com")
	twoCNs.Facts.Subject = append(twoCNs.Facts.Subject, []plugins.NameAttribute{{Type: "2.5.4.3", Value: "C02XK2"}})
	nobody := asks("C02XK1", "dns:c02xk1.example.com")
	nobody.Facts.Subject = nil
	unitAdded := asks("C02XK1", "dns:c02xk1.example.com")
	unitAdded.Facts.Subject = append(unitAdded.Facts.Subject, []plugins.NameAttribute{{Type: "2.5.4.11", Value: "Domain Admins"}})
	onlySubject := asks("C02XK1", "dns:other.example.com")
	onlySubject.Decides = []plugins.Field{plugins.Subject}
	onlySAN := unitAdded
	onlySAN.Decides = []plugins.Field{plugins.SAN}
	objects := asks("C02XK1", "dns:other.example.com")
	objects.Decides = nil
	silent := asks("C02XK1", "dns:c02xk1.example.com")
	silent.Decides = nil
	sid := asks("C02XK1", "dns:c02xk1.example.com")
	sid.Decides = append(sid.Decides, plugins.SID)
	for _, tt := range []struct {
		name    string
		request plugins.Request
		code    string // empty: agreed
	}{
		{"its names", honest()[0], ""},
		{"several names, in another order and case", honest()[1], ""},
		{"only the subject is asked about", onlySubject, ""},
		{"only the names are asked about", onlySAN, ""},
		{"nothing to decide, nothing wrong", silent, ""},
		{"nothing to decide, a wrong name", objects, "name_mismatch"},
		{"a stranger", asks("administrator"), "not_in_inventory"},
		{"another case of a CN", asks("c02xk1", "dns:c02xk1.example.com"), "not_in_inventory"},
		{"a blank after the CN", asks("C02XK1 ", "dns:c02xk1.example.com"), "not_in_inventory"},
		{"a retired device", asks("C02XK3", "dns:c02xk3.example.com"), "device_retired"},
		{"a device of another status", asks("C02XK4"), "device_not_active"},
		{"no alternative name", asks("C02XK1"), "name_mismatch"},
		{"another device's name", asks("C02XK1", "dns:c02xk2.example.com"), "name_mismatch"},
		{"one name too many", asks("C02XK1", "dns:c02xk1.example.com", "dns:dc01.example.com"), "name_mismatch"},
		{"one name missing", asks("C02XK2", "dns:c02xk2.example.com", "upn:ann@example.com"), "name_mismatch"},
		{"a name of another type", asks("C02XK1", "dns:c02xk1.example.com", "upn:administrator@example.com"), "name_mismatch"},
		{"a part of the subject too many", unitAdded, "name_mismatch"},
		{"two CNs", twoCNs, "no_common_name"},
		{"no subject", nobody, "no_common_name"},
		{"a field that it does not decide", sid, "not_decided_here"},
	} {
		a, err := i.Match(t.Context(), tt.request)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if (a.Verdict == plugins.Agree) != (tt.code == "") || a.Code != tt.code {
			t.Errorf("%s: %+v, want code %q", tt.name, a, tt.code)
		}
	}
}

func TestAFileThatIsNotWholeIsAnError(t *testing.T) {
	const head = "serial,status,cn,dns\n"
	for _, tt := range []struct{ name, text, says string }{
		{"empty", "", "ends within a line"},
		{"only line ends", "\n\n", "its first line"},
		{"a column missing", "serial,cn\n1,a\n", "no column is named status"},
		{"semicolons", "serial;status;cn\n1;active;a\n", "divided by commas"},
		{"a column twice", "serial,status,cn,CN \n1,active,a,b\n", "two columns are named cn"},
		{"a cell too few", head + "1,active,a\n", "line 2"},
		{"a cell too many", head + "1,active,a,,\n", "line 2"},
		{"a cell too many below", head + "1,active,a,\n2,active,b,,x\n", "line 3"},
		{"cut off", head + "1,active,a,host.exampl", "ends within a line"},
		{"a quote that does not end", head + "1,active,\"a,\n", "quote"},
		{"a blank beside a quoted cell", head + "1,active,\"a\" ,\n", "quote"},
		{"a quote within a cell", head + "1,active,a\"b,\n", "quote"},
		{"a formula", head + "1,active,\"=HYPERLINK(\"\"http://x\"\")\",\n", "formula"},
		{"a number made text for Excel", head + "\"=\"\"001\"\"\",active,a,\n", "formula"},
		{"a plus", head + "1,active,+a,\n", "formula"},
		{"a minus", head + "1,active,-a,\n", "formula"},
		{"an at", head + "1,active,a,@SUM(A1)\n", "formula"},
		{"a control character", head + "1,active,a\x00b,\n", "control character"},
		{"a line end within a name", head + "1,active,\"a\nb\",\n", "control character"},
		{"not UTF-8", head + "1,active,M\xfcller,\n", "UTF-8"},
		{"UTF-16", "\xff\xfes\x00e\x00r\x00\n\x00", "UTF-8"},
		{"no serial", head + " ,active,a,\n", "line 2: no serial"},
		{"no status", head + "1,,a,\n", "line 2: no status"},
		{"no CN", head + "1,active,,\n", "line 2: no cn"},
		{"a CN twice", head + "1,retired,a,\n2,active,a,\n", "lines 2 and 3 have the same cn"},
		{"a CN twice but for blanks", head + "1,retired,a,\n2,active, a ,\n", "lines 2 and 3 have the same cn"},
		{"a serial twice", head + "1,active,a,\n1,active,b,\n", "lines 2 and 3 have the same serial"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i, file := over(t, "serial,status,cn,o\n1,active,a,Example Corp\n")
			if a, err := i.Match(t.Context(), asks("a")); err != nil || a.Verdict != plugins.Agree {
				t.Fatalf("before: %+v, %v", a, err)
			}
			write(t, file, tt.text)
			for range 2 { // also when it is not read again
				a, err := i.Match(t.Context(), asks("a"))
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%+v, error %v, which does not say %q", a, err, tt.says)
				}
			}
			if err := new(inventory).Configure(t.Context(), map[string]string{"file": file}); err == nil {
				t.Error("configured with it")
			}
			write(t, file, "serial,status,cn,o\n1,active,a,Example Corp\n")
			if a, err := i.Match(t.Context(), asks("a")); err != nil || a.Verdict != plugins.Agree {
				t.Errorf("repaired: %+v, %v", a, err)
			}
		})
	}
}

func TestWhatSpreadsheetsWriteIsRead(t *testing.T) {
	want := table{"Müller, \"M\"": {status: "active", names: plugins.Expectation{
		Subject: [][]plugins.ExpectedAttribute{{{Type: "2.5.4.3", Match: "exact", Value: "Müller, \"M\""}}, {{Type: "2.5.4.10", Match: "exact", Value: "Example Corp"}}},
		SAN:     []plugins.ExpectedAltNames{{Type: "dns", Match: "exact", Value: "a.example.com", Min: 1, Max: 1}},
	}}}
	for name, text := range map[string]string{
		"plain":                      "serial,status,cn,o,dns\n1,active,\"Müller, \"\"M\"\"\",Example Corp,a.example.com\n",
		"a byte order mark":          "\ufeffserial,status,cn,o,dns\n1,active,\"Müller, \"\"M\"\"\",Example Corp,a.example.com\n",
		"CRLF":                       "serial,status,cn,o,dns\r\n1,active,\"Müller, \"\"M\"\"\",Example Corp,a.example.com\r\n",
		"everything quoted":          "\"serial\",\"status\",\"cn\",\"o\",\"dns\"\n\"1\",\"active\",\"Müller, \"\"M\"\"\",\"Example Corp\",\"a.example.com\"\n",
		"other columns, and a BOM":   "\ufeff\"Owner\",DNS,O,CN,Status,Serial\n=1+1,a.example.com,Example Corp,\"Müller, \"\"M\"\"\",Active,1\n",
		"blanks, and a name twice":   "serial , status,cn,o,dns\n1 , ACTIVE ,\"Müller, \"\"M\"\"\", Example Corp ,a.example.com  a.example.com\n",
		"empty lines, and no others": "serial,status,cn,o,dns\n\n1,active,\"Müller, \"\"M\"\"\",Example Corp,a.example.com\n\n",
	} {
		got, err := parse([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(device{})); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

func TestAChangeOfTheFileCountsAtOnce(t *testing.T) {
	const row = "serial,status,cn,o\n1,active ,a,Example Corp\n"
	i, file := over(t, row)
	says := func(want string) {
		t.Helper()
		a, err := i.Match(t.Context(), asks("a"))
		if got := a.Code; err != nil || got != want {
			t.Errorf("code %q, error %v, want %q", got, err, want)
		}
	}
	says("")
	write(t, file, strings.Replace(row, "active ", "retired", 1)) // as long as before
	says("device_retired")
	write(t, file, row)
	says("")
	// In place, and not renamed.
	if err := os.WriteFile(file, []byte(strings.Replace(row, "active ", "retired", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	says("device_retired")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if a, err := i.Match(t.Context(), asks("a")); err == nil {
		t.Errorf("without a file: %+v", a)
	}
	write(t, file, row)
	says("")
}

func TestItsConfigurationIsOneAbsolutePath(t *testing.T) {
	dir := t.TempDir()
	for name, config := range map[string]map[string]string{
		"nothing":         {},
		"empty":           {"file": ""},
		"relative":        {"file": "inventory.csv"},
		"absent":          {"file": filepath.Join(dir, "absent.csv")},
		"a folder":        {"file": dir},
		"another option":  {"file": filepath.Join(dir, "x.csv"), "url": "https://example.com"},
		"a device's file": {"file": os.DevNull},
	} {
		i := new(inventory)
		if err := i.Configure(t.Context(), config); err == nil {
			t.Errorf("%s: configured", name)
		}
		if a, err := i.Match(t.Context(), asks("C02XK1", "dns:c02xk1.example.com")); err == nil {
			t.Errorf("%s: answered %+v", name, a)
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte("serial,status,cn,o,dns\n1,active,a,Example Corp,a.example.com\n"))
	f.Add([]byte("\ufeffserial,status,cn\r\n\"1\",\"active\",\"a\"\"b\"\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		rows, err := parse(text)
		if err != nil && rows != nil {
			t.Fatal("rows beside an error")
		}
		for cn, d := range rows {
			if cn == "" || len(d.names.Subject) == 0 || d.names.Subject[0][0].Value != cn {
				t.Fatalf("%q is %+v", cn, d)
			}
		}
	})
}
