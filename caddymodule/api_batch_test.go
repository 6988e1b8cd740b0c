package caddymodule

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/scepgate/scepgate/store"
)

// batchLines decodes an NDJSON answer and checks that it is in order.
func batchLines(t testing.TB, w *httptest.ResponseRecorder) []map[string]any {
	t.Helper()
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("status %d, Content-Type %q: %s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	var lines []map[string]any
	last := 0.0
	scanner := bufio.NewScanner(w.Body)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var v map[string]any
		if err := json.Unmarshal(scanner.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		if (v["expectation"] == nil) == (v["problem"] == nil) {
			t.Errorf("neither or both: %v", v)
		}
		if line := v["line"].(float64); line <= last {
			t.Errorf("line %v after %v", line, last)
		} else {
			last = line
		}
		lines = append(lines, v)
	}
	return lines
}

func statuses(lines []map[string]any) (got []string) {
	for _, l := range lines {
		text := fmt.Sprint(l["line"], " ", l["status"])
		if p, ok := l["problem"].(map[string]any); ok {
			text += " " + p["code"].(string)
		}
		got = append(got, text)
	}
	return got
}

func wantLines(t testing.TB, w *httptest.ResponseRecorder, want ...string) []map[string]any {
	t.Helper()
	lines := batchLines(t, w)
	if got := statuses(lines); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	return lines
}

const batchPath = wifi + "/batch"

func TestABatchAnswersLineByLine(t *testing.T) {
	b := newAPIBench(t)
	body := strings.Join([]string{
		`{"external_id":"1","subject":"CN=a"}`,
		``,
		`{"external_id":"2","subject":"CN=%x%"}`,
		`{"external_id":"3","subject":"CN=c","subject":"CN=d"}`,
		`not JSON`,
		`{"external_id":"1","subject":"CN=e"}`,
		`{"external_id":"4","subject":"` + strings.Repeat("a", maxAPIBody) + `"}`,
		"{\"external_id\":\"5\",\"subject\":\"CN=f\"}\r",
	}, "\n")
	lines := wantLines(t, b.do("POST", batchPath, body, header("Content-Type", "application/x-ndjson")),
		"1 201", "3 422 invalid_expectation", "4 400 invalid_json", "5 400 invalid_json", "6 409 external_id_in_use", "7 413 too_large", "8 201")
	if lines[0]["expectation"].(map[string]any)["challenge"] == nil {
		t.Error("a made challenge is not shown")
	}
	if n := b.logs.FilterMessage("api write").Len(); n != 7 {
		t.Errorf("%d log lines", n)
	}
}

func TestLinesThatAreInEachOthersWayAreTakenInOrder(t *testing.T) {
	b := newAPIBench(t)
	var body strings.Builder
	for i := range 100 {
		fmt.Fprintf(&body, `{"external_id":"x","subject":"CN=d%d"}`+"\n", i)
	}
	lines := batchLines(t, b.do("POST", batchPath+"?mode=upsert", body.String()))
	if len(lines) != 100 {
		t.Fatalf("%d lines", len(lines))
	}
	for i, l := range lines {
		want := 200.0
		if i == 0 {
			want = 201
		}
		if l["status"] != want {
			t.Errorf("line %d: %v", i+1, l)
		}
	}
	live, err := liveByExternalID(context.Background(), b.store, "wifi", "x")
	if err != nil || live == nil || live.Content.Subject[0][0].Value != "d99" {
		t.Errorf("the last line does not stand: %+v %v", live, err)
	}

	wantLines(t, b.do("POST", batchPath, strings.Repeat(`{"challenge":"8CE317021F690069AA","subject":"CN=a"}`+"\n", 3)),
		"1 201", "2 409 challenge_in_use", "3 409 challenge_in_use")
	wantLines(t, b.do("POST", "/v1/profiles/static/expectations/batch", `{"subject":"CN=a,O=b"}`+"\n"+`{"subject":"O=b,CN=a"}`),
		"1 201", "2 409 identity_in_use")
}

// What a line gives back by replacing, the next may have.
func TestALineMayTakeWhatTheLineBeforeHasGivenBack(t *testing.T) {
	for round := range 10 {
		b := newAPIBench(t)
		challenge := func(c string) string { return fmt.Sprintf("challenge-%s-%d", c, round) }
		line := func(id, c string) string {
			return fmt.Sprintf(`{"external_id":%q,"subject":"CN=%s","challenge":%q}`, id, id, challenge(c))
		}
		wantLines(t, b.do("POST", batchPath+"?mode=upsert", line("a", "x"), header("Content-Type", "application/x-ndjson")), "1 201")
		moved := line("a", "y") + "\n" + line("b", "x") + "\n" + line("a", "z") + "\n" + line("c", "y")
		wantLines(t, b.do("POST", batchPath+"?mode=upsert&dry_run=true", line("a", "y")+"\n"+line("b", "x"), header("Content-Type", "application/x-ndjson")), "1 200", "2 201")
		wantLines(t, b.do("POST", batchPath+"?mode=upsert", moved, header("Content-Type", "application/x-ndjson")), "1 200", "2 201", "3 200", "4 201")
	}
}

func TestTheSameBatchAgainIsHarmlessWithUpsert(t *testing.T) {
	b := newAPIBench(t)
	var body strings.Builder
	for i := range 40 {
		fmt.Fprintf(&body, `{"external_id":"x%d","challenge":"8CE317021F690069%02d","subject":"CN=d%d"}`+"\n", i, i, i)
	}
	first := batchLines(t, b.do("POST", batchPath+"?mode=upsert", body.String()))
	second := batchLines(t, b.do("POST", batchPath+"?mode=upsert", body.String()))
	for i := range first {
		one, two := first[i]["expectation"].(map[string]any), second[i]["expectation"].(map[string]any)
		if first[i]["status"] != 201.0 || second[i]["status"] != 200.0 || one["id"] != two["id"] {
			t.Errorf("line %d: %v, %v", i+1, first[i], second[i])
		}
	}
	wantLines(t, b.do("POST", batchPath+"?mode=upsert", `{"subject":"CN=a"}`), "1 422 invalid_expectation")
	wantLines(t, b.do("POST", batchPath+"?mode=upsert", `{"external_id":"x1","subject":"CN=a"}`, as(tokenOther)), "1 409 external_id_in_use")
}

func TestADryRunWritesNothing(t *testing.T) {
	b := newAPIBench(t)
	made := wantStatus(t, b.do("POST", wifi, simpleBody), 201)
	body := strings.Join([]string{
		`{"external_id":"1","subject":"CN=a"}`,
		`{"external_id":"1","subject":"CN=b"}`,
		`{"external_id":"jamf:1","subject":"CN=c"}`,
		`{"challenge":"8CE317021F690069AA","subject":"CN=d"}`,
		`{"challenge":"8CE317021F690069BB","subject":"CN=e"}`,
		`{"challenge":"8CE317021F690069BB","subject":"CN=f"}`,
		`{}`,
	}, "\n")
	lines := wantLines(t, b.do("POST", batchPath+"?dry_run=true", body),
		"1 201", "2 409 external_id_in_use", "3 409 external_id_in_use", "4 409 challenge_in_use", "5 201", "6 409 challenge_in_use", "7 422 invalid_expectation")
	if e := lines[0]["expectation"].(map[string]any); e["id"] != "" || e["challenge"] != nil || e["challenge_fingerprint"] != nil {
		t.Errorf("shows what is not there: %v", e)
	}
	upsert := `{"external_id":"jamf:1","challenge":"8CE317021F690069AA","subject":"CN=c"}`
	wantLines(t, b.do("POST", batchPath+"?dry_run=true&mode=upsert", upsert+"\n"+upsert), "1 200", "2 200")
	wantLines(t, b.do("POST", batchPath+"?dry_run=true&mode=upsert", upsert, as(tokenOther)), "1 409 external_id_in_use")
	b.claim(made["id"].(string))
	wantLines(t, b.do("POST", batchPath+"?dry_run=true&mode=upsert", upsert), "1 409 expectation_in_use")
	wantStatus(t, b.do("DELETE", wifi+"/"+made["id"].(string), ""), 204)
	wantLines(t, b.do("POST", batchPath+"?dry_run=true", upsert), "1 409 challenge_used")

	page, err := b.store.List(context.Background(), store.Query{Profile: "wifi"})
	if err != nil || len(page.Items) != 1 {
		t.Errorf("%d expectations: %v", len(page.Items), err)
	}
	writes, asked := 0, 0
	for _, l := range b.logs.FilterMessage("api write").All() {
		if strings.Contains(fmt.Sprint(l.ContextMap()), "dry run") {
			asked++
		} else {
			writes++
		}
	}
	if writes != 2 || asked != 7 { // who asks what others hold is seen
		t.Errorf("%d writes and %d collisions of dry runs are logged", writes, asked)
	}
}

func TestBatchesOverALimitHaveNoEffect(t *testing.T) {
	line := `{"subject":"CN=a"}` + "\n"
	for name, body := range map[string]string{
		"lines": strings.Repeat(line, maxBatchLines+1),
		"bytes": line + strings.Repeat(" ", maxBatchBytes),
	} {
		for _, length := range []int64{int64(len(body)), -1} {
			b := newAPIBench(t)
			r := b.request("POST", batchPath, body)
			r.ContentLength = length
			wantProblem(t, b.send(r), 413, "too_large")
			if page, err := b.store.List(context.Background(), store.Query{Profile: "wifi"}); err != nil || len(page.Items) != 0 {
				t.Errorf("%s: %d registered, %v", name, len(page.Items), err)
			}
		}
	}
}

func TestBatchOptions(t *testing.T) {
	b := newAPIBench(t)
	for _, query := range []string{"?mode=replace", "?mode=", "?dry_run=1", "?dry_run=", "?dry_run", "?x=1", "?mode=create&mode=create"} {
		wantProblem(t, b.do("POST", batchPath+query, ""), 400, "invalid_parameter")
	}
	wantProblem(t, b.do("POST", batchPath, "", header("Content-Type", "text/plain")), 415, "unsupported_media_type")
	if w := b.do("POST", batchPath+"?mode=create&dry_run=false", "\n \n"); len(batchLines(t, w)) != 0 {
		t.Error("blank lines are answered")
	}
	for range maxBatches {
		b.h.batches <- struct{}{}
	}
	wantProblem(t, b.do("POST", batchPath, ""), 503, "overloaded")
}

func TestAPanicInOneLineIsThatLinesProblem(t *testing.T) {
	b := newAPIBench(t)
	b.store.Store = nil
	wantLines(t, b.do("POST", batchPath, `{"subject":"CN=a"}`+"\n"+`{}`), "1 500 internal_error", "2 422 invalid_expectation")
}

func TestABatchEndsWhenNobodyReads(t *testing.T) {
	b := newAPIBench(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := b.request("POST", batchPath, strings.Repeat(`{"subject":"CN=a"}`+"\n", 100))
	if w := b.send(r.WithContext(ctx)); w.Body.Len() != 0 {
		t.Errorf("answered %s", w.Body)
	}
	if page, err := b.store.List(context.Background(), store.Query{Profile: "wifi"}); err != nil || len(page.Items) != 0 {
		t.Errorf("%d registered, %v", len(page.Items), err)
	}
}
