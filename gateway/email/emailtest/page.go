package emailtest

import (
	_ "embed" // page.html
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

//go:embed page.html
var pageHTML string

var pages = template.Must(template.New("").Parse(pageHTML))

// listed is a letter in the list.
type listed struct {
	Number  int
	To      string
	Subject string
	Time    string
}

// Handler serves the letters: a list at its root, below it each letter by its
// number, as HTML and as it came. Links are relative, so that it may be mounted
// under any prefix with [http.StripPrefix].
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.list)
	mux.HandleFunc("GET /{number}", s.one(func(w http.ResponseWriter, l Letter, c Content) {
		render(w, "letter", struct {
			listed
			Letter  Letter
			Content Content
		}{row(l, c), l, c})
	}))
	mux.HandleFunc("GET /{number}/html", s.one(func(w http.ResponseWriter, _ Letter, c Content) {
		// A letter is a stranger's page: it may show itself and do nothing.
		w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(c.HTML)) // a reader that went away needs no answer
	}))
	mux.HandleFunc("GET /{number}/source", s.one(func(w http.ResponseWriter, l Letter, _ Content) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(l.Data)
	}))
	return mux
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	letters := s.Letters()
	slices.Reverse(letters)
	rows := make([]listed, len(letters))
	for i, l := range letters {
		c, _ := l.Content() // what cannot be read is listed without its subject
		rows[i] = row(l, c)
	}
	render(w, "list", rows)
}

func row(l Letter, c Content) listed {
	return listed{Number: l.Number, To: strings.Join(l.To, ", "), Subject: c.Subject, Time: l.At.Format("15:04:05")}
}

// one serves a page of one letter.
func (s *Server) one(show func(http.ResponseWriter, Letter, Content)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		number, err := strconv.Atoi(r.PathValue("number"))
		l, ok := s.Letter(number)
		if err != nil || !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		c, err := l.Content()
		if err != nil {
			c.Text = err.Error()
		}
		show(w, l, c)
	}
}

func render(w http.ResponseWriter, name string, data any) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; base-uri 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	_ = pages.ExecuteTemplate(w, name, data) // a reader that went away needs no answer
}
