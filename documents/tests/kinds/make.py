"""Makes the small documents of this folder, of which `tests/documents.rs` holds the Markdown. What an office program or
pandoc would write is written here by hand, so that the files stay small and say what they hold."""
import io, zipfile, zlib, os
here = os.path.dirname(os.path.abspath(__file__))
def put(name, data):
    with open(os.path.join(here, name), "wb") as out: out.write(data)
def pack(name, entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in entries:
            info = zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_STORED if path == "mimetype" else zipfile.ZIP_DEFLATED
            archive.writestr(info, text)
    put(name, buffer.getvalue()); return buffer.getvalue()

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
def p(text, props=""): return f'<w:p><w:pPr>{props}</w:pPr><w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'
def style(name): return f'<w:pStyle w:val="{name}"/>'
def numbered(num, level=0): return f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{num}"/></w:numPr>'
cell = lambda text, props="": f"<w:tc><w:tcPr>{props}</w:tcPr>{p(text)}</w:tc>"
docx = pack("permits.docx", [
  ("[Content_Types].xml", "<Types/>"),
  ("word/document.xml", f'''<?xml version="1.0" encoding="UTF-8"?><w:document {W} xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships" xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"><w:body>
{p("Rules of the harbour office", style("Title"))}{p("1 Scope 3", style("TOC1"))}{p("2 Fees 4", style("TOC1"))}
{p("Permits", style("Heading1"))}
<w:p><w:r><w:t xml:space="preserve">A permit costs </w:t></w:r><w:r><w:rPr><w:b/></w:rPr><w:t>five</w:t></w:r><w:r><w:t xml:space="preserve"> euros &amp; a stamp</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r><w:del><w:r><w:delText>, once</w:delText></w:r></w:del><w:ins><w:r><w:t>, always</w:t></w:r></w:ins><w:r><w:t>.</w:t></w:r><w:r><w:commentReference w:id="1"/></w:r></w:p>
{p("plans: two", numbered(1))}{p("maps:", numbered(1))}{p("of the coast", numbered(2, 1))}{p("of the town", numbered(2, 1))}
{p("Said by the warden.", style("Quote"))}
<w:tbl><w:tr>{cell("what")}{cell("price", '<w:gridSpan w:val="2"/>')}</w:tr><w:tr>{cell("boat|ship")}{cell("5")}{cell("7")}</w:tr></w:tbl>
{p("if late:", style("SourceCode"))}{p("    pay(2)", style("SourceCode"))}
<w:p><w:r><w:rPr><w:vanish/></w:rPr><w:t>secret</w:t></w:r><w:r><mc:AlternateContent><mc:Choice><w:drawing/></mc:Choice><mc:Fallback><w:pict/></mc:Fallback></mc:AlternateContent></w:r><w:r><w:t>See </w:t></w:r><w:hyperlink r:id="x"><w:r><w:t>the notice</w:t></w:r></w:hyperlink></w:p>
<w:sectPr/></w:body></w:document>'''),
  ("word/styles.xml", f'<w:styles {W}><w:style w:styleId="Heading1"><w:name w:val="heading 1"/></w:style><w:style w:styleId="TOC1"><w:name w:val="toc 1"/></w:style><w:style w:styleId="Title"><w:name w:val="Title"/></w:style><w:style w:styleId="Quote"><w:name w:val="Quote"/></w:style><w:style w:styleId="SourceCode"><w:name w:val="Source Code"/></w:style></w:styles>'),
  ("word/numbering.xml", f'<w:numbering {W}><w:abstractNum w:abstractNumId="0"><w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="bullet"/></w:lvl></w:abstractNum><w:abstractNum w:abstractNumId="1"><w:lvl w:ilvl="1"><w:start w:val="3"/><w:numFmt w:val="decimal"/></w:lvl></w:abstractNum><w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num><w:num w:numId="2"><w:abstractNumId w:val="1"/></w:num></w:numbering>'),
  ("word/footnotes.xml", f'<w:footnotes {W}><w:footnote w:id="2">{p("Sold at the gate.")}</w:footnote></w:footnotes>'),
  ("word/header1.xml", "<w/>"),
])
ODF = " ".join(f'xmlns:{n}="urn:oasis:names:tc:opendocument:xmlns:{u}:1.0"' for n, u in [("office","office"),("text","text"),("table","table"),("draw","drawing"),("style","style")])
t = lambda text, style="Standard": f'<text:p text:style-name="{style}">{text}</text:p>'
c = lambda text: f"<table:table-cell>{t(text)}</table:table-cell>"
pack("permits.odt", [
  ("mimetype", "application/vnd.oasis.opendocument.text"),
  ("content.xml", f'''<?xml version="1.0" encoding="UTF-8"?><office:document-content {ODF}><office:automatic-styles><style:style style:name="P1" style:parent-style-name="Preformatted_20_Text"/><style:style style:name="P2" style:parent-style-name="Quotations"/><text:list-style style:name="L1"><text:list-level-style-bullet text:level="1"/><text:list-level-style-number text:level="2" style:num-format="1" text:start-value="3"/></text:list-style></office:automatic-styles><office:body><office:text>
<text:tracked-changes><text:changed-region><text:deletion>{t("gone")}</text:deletion></text:changed-region></text:tracked-changes>
<text:table-of-content><text:index-body>{t("Permits 1")}</text:index-body></text:table-of-content>
{t("Rules of the harbour office", "Title")}<text:h text:outline-level="1">Permits</text:h>
<text:p>A permit costs <text:span>five</text:span><text:s text:c="2"/>euros &amp; a  stamp<text:note><text:note-citation>1</text:note-citation><text:note-body>{t("Sold at the gate.")}</text:note-body></text:note>.<text:line-break/>See <text:a>the notice</text:a><office:annotation>{t("check")}</office:annotation></text:p>
<text:list text:style-name="L1"><text:list-item>{t("plans: two")}</text:list-item><text:list-item>{t("maps:")}<text:list><text:list-item>{t("of the coast")}</text:list-item><text:list-item>{t("of the town")}</text:list-item></text:list></text:list-item></text:list>
{t("Said by the warden.", "P2")}<table:table><table:table-row>{c("what")}{c("price")}</table:table-row><table:table-row>{c("boat|ship")}{c("5")}</table:table-row></table:table>
{t("if late:", "P1")}{t('<text:s text:c="4"/>pay(2)', "P1")}<text:p><draw:frame><draw:image/></draw:frame></text:p>
</office:text></office:body></office:document-content>'''),
  ("styles.xml", f"<office:document-styles {ODF}><office:master-styles><style:header>{t('Harbour office')}</style:header></office:master-styles></office:document-styles>"),
])
pack("fees.ods", [
  ("mimetype", "application/vnd.oasis.opendocument.spreadsheet"),
  ("content.xml", f'''<office:document-content {ODF}><office:body><office:spreadsheet><table:table table:name="Fees"><table:table-row>{c("what")}{c("from")}{c("price")}</table:table-row><table:table-row>{c("boat")}<table:table-cell office:value-type="date" office:date-value="2026-02-01">{t("01.02.26")}</table:table-cell><table:table-cell office:value-type="float" office:value="5.5">{t("5,50 €")}</table:table-cell></table:table-row><table:table-row table:number-rows-repeated="1048000"><table:table-cell table:number-columns-repeated="16384"/></table:table-row></table:table><table:table table:name="Empty"/></office:spreadsheet></office:body></office:document-content>'''),
])
X = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
R = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
pack("fees.xlsx", [
  ("[Content_Types].xml", "<Types/>"),
  ("xl/workbook.xml", f'<workbook {X} {R}><sheets><sheet name="Fees" r:id="a"/><sheet name="Old" state="hidden" r:id="b"/></sheets></workbook>'),
  ("xl/_rels/workbook.xml.rels", '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="a" Target="worksheets/sheet1.xml"/><Relationship Id="b" Target="worksheets/sheet2.xml"/></Relationships>'),
  ("xl/sharedStrings.xml", f'<sst {X}><si><t>what</t></si><si><r><t>from</t></r><rPh><t>x</t></rPh></si><si><t>boat</t></si></sst>'),
  ("xl/styles.xml", f'<styleSheet {X}><numFmts><numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd"/></numFmts><cellStyleXfs><xf numFmtId="14"/></cellStyleXfs><cellXfs><xf numFmtId="0"/><xf numFmtId="164"/><xf numFmtId="10"/></cellXfs></styleSheet>'),
  ("xl/worksheets/sheet1.xml", f'''<worksheet {X}><sheetData><row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c><c r="D1" t="inlineStr"><is><t>tax</t></is></c></row><row r="2"><c r="A2" t="s"><v>2</v></c><c r="B2" s="1"><v>46054</v></c><c r="D2" s="2"><v>0.075</v></c></row><row r="5"><c r="A5" t="str"><f>A2</f><v>sum</v></c><c r="B5"><f>1+0.1</f><v>0.30000000000000004</v></c></row></sheetData></worksheet>'''),
  ("xl/worksheets/sheet2.xml", f'<worksheet {X}><sheetData><row r="1"><c r="A1"><v>1</v></c></row></sheetData></worksheet>'),
])
page = lambda title, body: f'<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>{title}</title><link rel="x" href="y"/></head><body><a id="top"/>{body}</body></html>'
pack("permits.epub", [
  ("mimetype", "application/epub+zip"),
  ("META-INF/container.xml", '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="book/package.opf"/></rootfiles></container>'),
  ("book/package.opf", '<package xmlns="http://www.idpf.org/2007/opf"><manifest><item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/><item id="b" href="text/two%20b.xhtml" media-type="application/xhtml+xml"/><item id="a" href="text/one.xhtml" media-type="application/xhtml+xml"/><item id="c" href="cover.png" media-type="image/png"/></manifest><spine><itemref idref="nav"/><itemref idref="a"/><itemref idref="b"/></spine></package>'),
  ("book/nav.xhtml", page("nav", "<nav>Permits</nav>")),
  ("book/text/one.xhtml", page("one", "<h1>Permits</h1><p>A permit costs five euros.</p>")),
  ("book/text/two b.xhtml", page("two", "<h1>Hours</h1><ol><li>Nine to <i>twelve</i></li></ol>")),
])
put("notice.html", '<!DOCTYPE html><html><head><meta charset="iso-8859-1"><title>Behörde</title></head><body><nav>Menü</nav><main><h1>Gebühren</h1><p>Ein Stempel kostet zwei Mark fünfzig.</p><table><tr><th>was<th>Preis</tr><tr><td>Boot<td>5</tr></table></main><footer>Impressum</footer></body></html>'.encode("latin-1"))
put("notice.md", b"---\ntitle: x\n---\n\nHours\n=====\n\n1. nine\n2. twelve\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```sh\nopen --gate\n```\n\n[l]: x\n")
put("notice.txt", "Die Behörde öffnet um neun.\nSie schließt um zwölf.\n\nAnträge nimmt der Pförtner an.\n\x0cNur werktags.\n".encode("cp1252"))
mail = b"""From: =?utf-8?q?J=C3=B6rg?= <joerg@example.org>\r\nTo: office@example.org\r\nSubject: =?utf-8?b?R2Viw7xocmVu?=\r\nDate: Mon, 30 Nov 2026 10:00:00 +0100\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nWhat does a permit cost for the f=E4hre?\r\n\r\n> It was five.\r\n--a\r\nContent-Type: text/html\r\n\r\n<p>What does a permit cost?\r\n--a--\r\n--b\r\nContent-Type: application/octet-stream; name=list.html\r\nContent-Disposition: attachment; filename=list.html\r\n\r\n<html><body><h1>List</h1><p>of boats</body></html>\r\n--b\r\nContent-Type: image/png\r\nContent-Disposition: attachment; filename=boat.png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgoAAAANSUhEUg==\r\n--b--\r\n"""
put("question.eml", mail)
put("box.mbox", b"From joerg@example.org Mon Nov 30 10:00:00 2026\n" + mail.replace(b"\r\n", b"\n") + b"\nFrom anna@example.org Mon Nov 30 11:00:00 2026\nFrom: anna@example.org\nSubject: Hours\nDate: Mon, 30 Nov 2026 11:00:00 +0100\nContent-Type: text/html\n\n<p>Open at <b>nine</b>?</p>\n>From here on it is late.\n")
def pdf(name, pages, extra=b"", outline=True):
    objects = []
    def add(body): objects.append(body); return len(objects)
    add(b"<< /Type /Catalog /Pages 2 0 R /Outlines 6 0 R >>"); add(b"")
    add(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    add(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding /WinAnsiEncoding >>")
    add(b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding >>")
    add(b"<< /First 7 0 R >>"); add(b"<< /Title (Permits) /First 8 0 R >>"); add(b"<< /Title (Hours of the office) /Next 8 0 R >>")
    kids = []
    for content in pages:
        data = zlib.compress(content)
        stream = add(b"<< /Length %d /Filter /FlateDecode >>\nstream\n" % len(data) + data + b"\nendstream")
        kids.append(add(b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 600] /Resources << /Font << /F 3 0 R /B 4 0 R /C 5 0 R >> >> /Contents %d 0 R >>" % stream))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(b"%d 0 R" % kid for kid in kids))
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects):
        places.append(len(out)); out += b"%d 0 obj\n" % (number + 1) + body + b"\nendobj\n"
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    put(name, out)
def text(x, y, words, font="F", size=10): return f"BT /{font} {size} Tf {x} {y} Td ({words}) Tj ET\n".encode("cp1252")
edge = lambda number: text(40, 575, "Rules of the harbour office", size=8) + text(195, 20, str(number), size=8)
pdf("permits.pdf", [
  edge(1) + text(40, 540, "Permits", "B", 18) + text(40, 510, "A permit costs five euros and a stamp, which the war-") + text(40, 498, "den sells at the gate. It is a long-term permit.") + text(40, 474, "Who comes late pays for a long-") + text(40, 462, "term permit twice. The next page tells the rest of") ,
  edge(2) + text(40, 540, "this rule, in its own words.") + text(40, 510, "Hours of the office", "B", 11) + text(40, 490, "\\225 nine to twelve") + text(40, 478, "\\225 two to four, but not on days before a") + text(50, 466, "holiday") + text(40, 440, "if late:", "C") + text(52, 428, "pay(2)", "C") + text(52, 416, "go()", "C"),
  b"0 0 1 rg 40 40 300 500 re f\n",
  edge(4) + text(40, 540, "The office is closed."),
])
pdf("scanned.pdf", [b"0 0 1 rg 40 40 300 500 re f\n"] * 2)
