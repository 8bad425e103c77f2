package apidoc_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"zvonok/access/reader/apidoc"
)

type greeting struct {
	Name string `json:"name" doc:"Whom <b>to</b> greet"`
}

func serve(t *testing.T) *http.ServeMux {
	t.Helper()
	mux := http.NewServeMux()
	api := apidoc.New(mux, "1.2.3")
	huma.Register(api, huma.Operation{
		OperationID: "greet", Method: http.MethodPost, Path: "/greet", Summary: "Greets somebody",
	}, func(context.Context, *struct{ Body greeting }) (*struct{ Body greeting }, error) { return nil, nil })
	return mux
}

func get(t *testing.T, mux *http.ServeMux, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%s answers %d", path, w.Code)
	}
	return w
}

func TestTheDescriptionIsOpenAPI31AndNamesEveryOperation(t *testing.T) {
	t.Parallel()
	var description struct {
		OpenAPI string                    `json:"openapi"`
		Paths   map[string]map[string]any `json:"paths"`
		Info    struct{ Version string }  `json:"info"`
	}
	if err := json.Unmarshal(get(t, serve(t), "/api/openapi.json").Body.Bytes(), &description); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(description.OpenAPI, "3.1.") || description.Info.Version != "1.2.3" ||
		description.Paths["/greet"]["post"] == nil {
		t.Errorf("the description is %+v", description)
	}
}

// ASVS V3.4: a strict policy, and nothing from other hosts.
func TestThePageNeedsNoOtherHostAndNoScript(t *testing.T) {
	t.Parallel()
	mux := serve(t)
	w := get(t, mux, "/api/docs")
	page := w.Body.String()
	if !strings.HasPrefix(w.Header().Get("Content-Security-Policy"), "default-src 'none';") {
		t.Errorf("the policy is %q", w.Header().Get("Content-Security-Policy"))
	}
	if regexp.MustCompile(`(?i)<script|<style|\sstyle=|\s(src|href)="(https?:)?//|\son\w+="`).MatchString(page) {
		t.Error("the page holds a script, a style or another host's address")
	}
	for _, link := range regexp.MustCompile(`(?:href|src)="(/[^"]*)"`).FindAllStringSubmatch(page, -1) {
		get(t, mux, link[1])
	}
	for _, want := range []string{"POST /greet", "Greets somebody", "Whom &lt;b&gt;to&lt;/b&gt; greet"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}
