// Package apidoc makes the program's one API object, whose OpenAPI 3.1
// description is at /api/openapi.json (and .yaml), and serves the same
// description as a page for people at /api/docs.
//
// The page is made on the server from the description itself: no script, no
// other host, nothing to build. It works offline and under the strictest
// content security policy.
package apidoc

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"zvonok/ledger/money"
)

//go:embed page.html
var pageSource string

//go:embed page.css
var style []byte

// policy lets the page load its own style sheet and nothing else.
const policy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// New makes the API object on a mux and serves its description. Version is that
// of the program. Operations are registered on the result afterwards; the
// description is completed by the first request for it.
func New(mux *http.ServeMux, version string) huma.API {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	registry.RegisterTypeAlias(reflect.TypeFor[money.Amount](), reflect.TypeFor[string]()) // "143.50"
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:   "Zvonok",
				Version: version,
				Description: "Doors, tills and tablets of schools report here and ask for decisions, staff work here, and parents " +
					"see their children's visits, meals and money. " +
					"Errors are problem documents (RFC 9457).",
			},
			Components: &huma.Components{Schemas: registry},
		},
		OpenAPIPath:   "/api/openapi",
		Formats:       huma.DefaultFormats,
		DefaultFormat: "application/json",
	}
	api := humago.New(mux, config)
	p := &page{api: api}
	mux.HandleFunc("GET /api/docs", p.serve)
	mux.HandleFunc("GET /api/docs.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Write(style) // a reader who has gone needs no style
	})
	return api
}

// page renders the description once.
type page struct {
	api  huma.API
	once sync.Once
	html []byte
	err  error
}

func (p *page) serve(w http.ResponseWriter, _ *http.Request) {
	p.once.Do(func() { p.html, p.err = render(p.api.OpenAPI()) })
	if p.err != nil {
		http.Error(w, "the description cannot be shown", http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	w.Write(p.html) // a reader who has gone needs no page
}

// document is what the page shows.
type document struct {
	Info       *huma.Info
	Operations []operation
	Schemas    []schema
}

type operation struct {
	Method, Path string
	*huma.Operation
	Request   string // the name of its schema
	Answers   []answer
	Protected bool
}

type answer struct {
	Status, Description, Schema string
	Headers                     []string
}

type schema struct {
	Name   string
	Fields []field
}

type field struct {
	Name, Type, Link, Description, Example string
	Required                               bool
	Allowed                                []string
}

func render(api *huma.OpenAPI) ([]byte, error) {
	t, err := template.New("page").Parse(pageSource)
	if err != nil {
		return nil, fmt.Errorf("read the page of the description: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, describe(api)); err != nil {
		return nil, fmt.Errorf("write the page of the description: %w", err)
	}
	return b.Bytes(), nil
}

func describe(api *huma.OpenAPI) document {
	d := document{Info: api.Info}
	for path, item := range api.Paths {
		for method, op := range map[string]*huma.Operation{
			"GET": item.Get, "POST": item.Post, "PUT": item.Put, "PATCH": item.Patch, "DELETE": item.Delete,
		} {
			if op != nil {
				d.Operations = append(d.Operations, describeOperation(method, path, op))
			}
		}
	}
	slices.SortFunc(d.Operations, func(a, b operation) int {
		return strings.Compare(a.Path+" "+a.Method, b.Path+" "+b.Method)
	})
	for name, s := range api.Components.Schemas.Map() {
		d.Schemas = append(d.Schemas, describeSchema(name, s))
	}
	slices.SortFunc(d.Schemas, func(a, b schema) int { return strings.Compare(a.Name, b.Name) })
	return d
}

func describeOperation(method, path string, op *huma.Operation) operation {
	o := operation{Method: method, Path: path, Operation: op, Protected: len(op.Security) > 0}
	if op.RequestBody != nil {
		o.Request = schemaOf(op.RequestBody.Content)
	}
	for status, response := range op.Responses {
		a := answer{Status: status, Description: response.Description, Schema: schemaOf(response.Content)}
		for name := range response.Headers {
			a.Headers = append(a.Headers, name)
		}
		slices.Sort(a.Headers)
		o.Answers = append(o.Answers, a)
	}
	slices.SortFunc(o.Answers, func(a, b answer) int { return strings.Compare(a.Status, b.Status) })
	return o
}

// schemaOf names the schema of a body's JSON form.
func schemaOf(content map[string]*huma.MediaType) string {
	for _, media := range content {
		if media.Schema != nil && media.Schema.Ref != "" {
			return nameOf(media.Schema.Ref)
		}
	}
	return ""
}

func nameOf(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

func describeSchema(name string, s *huma.Schema) schema {
	out := schema{Name: name}
	for name, property := range s.Properties {
		f := field{Name: name, Description: property.Description, Required: slices.Contains(s.Required, name)}
		f.Type, f.Link = typeOf(property)
		for _, value := range property.Enum {
			f.Allowed = append(f.Allowed, fmt.Sprint(value))
		}
		if len(property.Examples) > 0 {
			f.Example = fmt.Sprint(property.Examples[0])
		}
		out.Fields = append(out.Fields, f)
	}
	slices.SortFunc(out.Fields, func(a, b field) int {
		if a.Required != b.Required {
			if a.Required {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

// typeOf says the type of a property, and the schema to which it leads.
func typeOf(s *huma.Schema) (text, link string) {
	switch {
	case s.Ref != "":
		return nameOf(s.Ref), nameOf(s.Ref)
	case s.Type == huma.TypeArray && s.Items != nil:
		text, link = typeOf(s.Items)
		return "array of " + text, link
	case s.Format != "":
		return s.Type + " (" + s.Format + ")", ""
	default:
		return s.Type, ""
	}
}
