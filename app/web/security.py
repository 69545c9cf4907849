"""What a browser is told not to do with our pages: the headers of `/`, of its files, and of `/docs`, in one place."""

#: Headers of everything that a browser might take for a page.
COMMON = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

_NOTHING_ELSE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
#: The page: its own files and nothing else. No script or style within the HTML, no request to another host (so no
#: remote image either), and no string becomes HTML unless DOMPurify has made it.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    f"{_NOTHING_ELSE}; require-trusted-types-for 'script'; trusted-types dompurify"
)
#: `/docs`: one HTML file with its style within, and no script at all.
DOCS_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; {_NOTHING_ELSE}"

PAGE_HEADERS = {"Content-Security-Policy": PAGE_POLICY, **COMMON}
DOCS_HEADERS = {"Content-Security-Policy": DOCS_POLICY, **COMMON}
