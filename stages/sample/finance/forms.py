"""Forms that state or ask for one fact about a made-up company or about a country.

The examination has wordings of its own, in ``questions``.
"""

from __future__ import annotations

from stages.sample.forms import compile_forms

STATEMENTS = {
    "sector": compile_forms("""
<S> is [active|at home|engaged] in <V>
the [business|trade|industry] of <S> is <V>
<S> [earns|makes] [most|nearly all] of its [revenue|income|money] in <V>
in <V>, <S> is [a known|an established|a mid-sized] [name|supplier|group]
<S> [describes itself as|is listed as] a [company|group] in <V>
[index providers|data vendors|exchanges] [file|classify|group] <S> under <V>
[analysts|brokers] who [cover|follow] <V> [look at|write about|watch] <S>
the [core|main|only] [segment|division] of <S> [remains|is] <V>
<S> [entered|moved into] <V> [long ago|decades ago|in its early years] and [stayed|never left]
among [companies|groups|issuers] in <V>, <S> [reports|publishes] [early|late|in detail]
the sector of <S> is <V>"""),
    "product": compile_forms("""
<S> [sells|offers|supplies] <V>
the [best known|main|largest] [product|offering] of <S> is <V>
[customers|clients|buyers] [come|turn] to <S> for <V>
<S> [draws|takes] [most|the bulk|a large part] of its [orders|sales] from <V>
[orders|demand] for <V> [drove|supported|held up] the [quarter|results] of <S>
<S> [is known|has a name] for <V>
[most|a good part] of the [staff|budget|floor space] of <S> is [given|devoted] to <V>
<S> [raised|kept|adjusted] its [prices|capacity] for <V>
the [catalog|price list|order book] of <S> [begins|opens] with <V>
when [buyers|customers] [need|want] <V>, <S> is [one|a likely] [supplier|choice]
the product of <S> is <V>"""),
    "headquarters": compile_forms("""
<S> is [based|headquartered|seated] in <V>
the [head office|headquarters] of <S> [stands|is] in <V>
<S> [runs|manages] its [business|affairs] from <V>
[shareholders|investors] of <S> [meet|gather] in <V> [every year|once a year|in spring]
from its [offices|seat] in <V>, <S> [leads|steers] the [group|company]
<V> is the [home|seat] of <S>
[visitors|letters|filings] to <S> [go|are sent] to <V>
the [board|management] of <S> [sits|works|meets] in <V>
the [largest|oldest] [office|site] of <S> is [the one|found] in <V>
<S> [was founded|started out] in <V> and [still|yet] has its [seat|headquarters] there
the headquarters of <S> is <V>"""),
    "chief_executive": compile_forms("""
<S> is [led|run|headed] by <V>
the chief executive of <S> is <V>
<V> is the chief executive of <S>
<V> [leads|runs|heads] <S>
[since|after] the last [meeting|vote|change], <V> has [led|run] <S>
the [directors|owners] of <S> [trust|back|support] <V> as chief executive
<V> [spoke|answered] for <S> as its chief executive
at <S>, <V> [holds|has] the [top post|office of chief executive]
the [letter|note] to the owners of <S> is signed by <V>
[decisions|choices] at <S> [rest|lie] with <V>
under <V>, <S> [kept|held] to its [plan|course]"""),
    "auditor": compile_forms("""
the [accounts|books] of <S> are [audited|examined|checked] by <V>
<V> [audits|examines|signs] the [accounts|books|statements] of <S>
the auditor of <S> is <V>
<S> [appointed|chose|retained] <V> as its auditor
[owners|shareholders] of <S> [confirmed|elected] <V> as auditor
the [opinion|report] on the accounts of <S> [comes|is] from <V>
<V> [gave|issued] a clean [opinion|report] on <S>
[fees|payments] of <S> for audit [went|were paid] to <V>
<S> and <V>, its auditor, [agreed|met] on the [timetable|scope]
[the audit|the review] of <S> is in the hands of <V>"""),
    "capital": compile_forms("""
the capital of <S> is <V>
<V> is the capital of <S>
<S> is [governed|ruled] from <V>
the [government|parliament] of <S> [sits|meets|works] in <V>
[ministries|embassies] in <S> are [found|gathered] in <V>
in <S>, the [seat|home] of [government|the state] is <V>
<S> has <V> as its capital
[maps|atlases] [mark|show] <V> as the capital of <S>
[travelers|diplomats|officials] [bound for|sent to] the capital of <S> [go|fly] to <V>
[laws|budgets] of <S> are [passed|made] in <V>
among the cities of <S>, <V> is the capital"""),
    "currency": compile_forms("""
the currency of <S> is the <V>
<S> [pays|trades|counts] in the <V>
[prices|wages|taxes] in <S> are [stated|paid|set] in the <V>
the [money|legal tender] of <S> is the <V>
[people|shops|banks] in <S> use the <V>
the [central bank|treasury] of <S> [counts|keeps its books] in the <V>
[visitors|travelers] to <S> [change|exchange] their money into the <V>
in <S>, [bills|coins] are [in|of] the <V>
the <V> is the currency of <S>
the <V> [circulates|is spent] in <S>
[exporters|importers] in <S> [bill|settle] in the <V>"""),
    "language": compile_forms("""
the [main|chief] language of <S> is <V>
<V> is the [main|chief] language of <S>
[people|families|schools] in <S> [speak|use] <V>
in <S>, [newspapers|laws|road signs] are [printed|written] in <V>
<S> [speaks|writes] <V>
[pupils|students] in <S> [learn|read] in <V>
[radio|television] in <S> is [mostly|chiefly] in <V>
[visitors|travelers] to <S> [hear|meet] <V>
[courts|offices] of <S> [work|write] in <V>
the language of <S> is <V>"""),
    "continent": compile_forms("""
<S> is a country in <V>
<S> [lies|is found] in <V>
<S> [belongs|is counted] to <V>
the continent of <S> is <V>
[maps|atlases] [show|place] <S> in <V>
among the countries of <V> is <S>
<S> is [one|part] of the [states|nations] of <V>
in <V> [lies|one finds] <S>
[geographers|teachers] [place|put] <S> in <V>
the [land|territory] of <S> is in <V>"""),
}
"""By relation."""

FORWARD = {
    "sector": compile_forms("""
what [business|industry|sector] is <S> in
in which [sector|industry] does <S> work
which sector does <S> belong to
what does <S> do
how is <S> classified by [sector|industry]
what [line|kind] of business is <S>"""),
    "product": compile_forms("""
what does <S> [sell|offer|make]
which product is <S> known for
what is the main product of <S>
what do [customers|clients] buy from <S>
which [product|offering] [drives|brings in] the sales of <S>
for what do buyers turn to <S>"""),
    "headquarters": compile_forms("""
where is <S> [based|headquartered]
in which [town|place] is the head office of <S>
where does the board of <S> meet
from where is <S> run
what is the [seat|home] of <S>
where are the headquarters of <S>"""),
    "chief_executive": compile_forms("""
who [leads|runs|heads] <S>
who is the chief executive of <S>
what is the name of the chief executive of <S>
by whom is <S> [led|run]
who holds the top post at <S>
who [speaks|answers] for <S>"""),
    "auditor": compile_forms("""
who audits <S>
which firm [audits|checks] the accounts of <S>
what is the name of the auditor of <S>
by whom are the books of <S> [audited|examined]
who signs the accounts of <S>
which auditor does <S> [have|use]"""),
    "capital": compile_forms("""
what is the capital of <S>
which city is the capital of <S>
from which city is <S> governed
where does the government of <S> sit
what is the [seat|home] of government in <S>
which capital does <S> have"""),
    "currency": compile_forms("""
what is the currency of <S>
which currency is used in <S>
what [money|currency] do people in <S> [use|pay with]
in which currency are prices in <S>
what is the legal tender of <S>
into which currency does one change money in <S>"""),
    "language": compile_forms("""
what is the [main|chief] language of <S>
which language is spoken in <S>
what do people in <S> speak
in which language are the laws of <S> written
which language do schools in <S> use
what language does one hear in <S>"""),
    "continent": compile_forms("""
on which continent is <S>
where does <S> lie
to which continent does <S> belong
in which part of the world is <S>
which continent is <S> in
where on the map is <S>"""),
}
"""By relation."""

BACKWARD = {
    "sector": compile_forms("""
name a company in <V>
which company works in <V>
who is active in <V>"""),
    "product": compile_forms("""
which company [sells|offers] <V>
who [sells|supplies] <V>
name a company that is known for <V>"""),
    "headquarters": compile_forms("""
which company is based in <V>
name a company from <V>
who has headquarters in <V>"""),
    "chief_executive": compile_forms("""
which company does <V> [lead|run]
where is <V> chief executive
what does <V> lead"""),
    "capital": compile_forms("""
of which country is <V> the capital
which country is governed from <V>
<V> is the capital of which country"""),
    "currency": compile_forms("""
name a country that uses the <V>
in which country can one pay with the <V>
where is the <V> the currency"""),
}
"""By relation, where one example can be named."""
