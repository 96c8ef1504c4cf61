"""Audits on the question pages: a few sentences of findings, a question that they decide by yes, no or maybe, and why.

They teach what the second question set asks for, in wordings of their own: to read whether an attribute was found, not
found or left open.
"""

# ruff: noqa: E501 (one form a line)
from __future__ import annotations

from dataclasses import dataclass

from stages.sample.forms import Form, compile_forms

OPENINGS = compile_forms("""
[a short|an internal|a small] [audit|survey|exercise] looked up <S> in <N> invented records
[AIM|TOPIC|TASK]: to [check|audit] [how|whether] <S> is [described|filed] in <N> invented records
[two|three] readers went through <N> invented records on <S> [twice|with one form|independently]
[DESIGN|SAMPLE]: <N> invented files on <S> were [read|scored] by [two|three] [blinded readers|assessors]
<N> invented files on <S> were [drawn|scored], and [disagreements|doubts] were settled by [discussion|a third reader]
for a [class|course] on records, [students|trainees] [audited|reviewed] <N> invented files on <S>
[DESIGN|SAMPLE]: [two|three] assessors [marked|extracted] the entry on <S> in <N> invented records""")
"""The first sentence of an audit."""

LABELS = ("", "", "FINDINGS: ", "OUTCOME: ")
"""Before the findings."""

QUESTIONS = {
    "class": compile_forms("""
is <S> [listed|classified|grouped] as <aV>
does <S> belong to the <Vs>"""),
    "indication": compile_forms("""
is <S> [used|given|prescribed] for <V>
can <V> be a reason to [give|start] <S>"""),
    "adverse_effect": compile_forms("""
can <S> [cause|lead to] <V>
is <V> a [known|typical] effect of <S>"""),
    "target": compile_forms("""
does <S> act [on|through] <tV>
is <tV> the target of <S>"""),
    "gene": compile_forms("""
is <S> [caused by|due to] changes in <V>
do [variants|mutations] in <V> lead to <S>"""),
    "inheritance": compile_forms("""
is <S> inherited in <aV> pattern
do families with <S> show <V> inheritance"""),
    "sign": compile_forms("""
is <V> a sign of <S>
can <S> show itself by <V>"""),
    "test": compile_forms("""
can <V> [detect|establish] <S>
is <V> a useful test for <S>"""),
    "treatment": compile_forms("""
can <V> be [given|offered] for <S>
is <S> [treated|managed] with <V>"""),
    "kind": compile_forms("""
is <S> <aV>
do laboratories file <S> with the <Vs>"""),
    "disease": compile_forms("""
does <S> [cause|lead to] <V>
can <V> be due to <S>"""),
    "transmission": compile_forms("""
can people acquire <S> through <V>
is <V> a route of infection for <S>"""),
}
"""Questions answered by yes or no, by relation."""

ANY_RELATION = compile_forms("""
is <S> [linked|tied|related] to <V>
does the [audit|review] [support|confirm] <V> for <S>
should <S> be [filed|listed] with <V>
do <N> records support <V> for <S>
can <V> be [named|upheld] for <S>
is <V> [associated|paired] with <S>""")
"""Such questions for whatever relation."""

TAILS = compile_forms("""
according to <N> [records|files]
in [a survey|a review|an audit] of <N> [visits|records|files]
among <N> [people|participants|records]
across [a registry|a series] of <N> [records|participants]""")
"""Put behind some questions."""

SUBGROUPS = compile_forms("""
specifically in [older|younger|tall] [people|participants]
more often [in summer|during spring|after night shifts]
differently in [towns|villages|smokers|vegetarians]
to the same degree in [men and women|brothers|cooks]
[particularly|specifically] in [short-sighted|right-handed] [people|participants]""")
"""What a question that nothing decides goes on to ask."""


@dataclass(frozen=True)
class Verdict:
    """One way in which an audit ends."""

    answer: str
    findings: tuple[Form, ...]
    """``<V>`` is the true attribute and ``<W>`` the one asked about."""


YES = Verdict(
    "yes",
    compile_forms("""
the findings [tied|matched|linked] <S> to <V> in [nearly all|most|the majority of] [records|files]
<V> was [upheld|confirmed|observed] for <S> [throughout|consistently], and no other entry [was supported|came near]
[all|both] [readings|analyses] agreed on <V> for <S>, which left this finding [unchanged|firm]
the entry <V> was [upheld|found] for <S> in [nearly all|most|the great majority] of them
[readers|assessors] tied <S> to <V> [again and again|without exception|throughout], and no rival was [found|close]
<S> was [matched|paired] with <V> [in nearly every file|almost throughout], and a second analysis left this [unchanged|standing]
the [link|pairing] of <S> and <V> was [upheld|confirmed] in [nearly all|most] [files|records], with no rival
[assessors|readers] [upheld|confirmed] <V> for <S> in the great majority of [files|records]
an excess of <V> was [observed|seen] for <S> in [all|both] [analyses|readings]
further [checks|analyses] left the [link|pairing] of <S> and <V> unchanged
<V> was the entry that [assessors|readers] [upheld|matched] for <S> in [most|nearly all] files
for <S>, <V> came out [consistently|throughout], and [other|rival] entries were few"""),
)
NO = Verdict(
    "no",
    compile_forms("""
the findings did not [tie|link] <S> to <W>, and [most|nearly all] records [upheld|named] <V> instead
no [excess|support] of <W> was [found|seen] for <S>, while <V> was [upheld|confirmed] in [most|nearly all] records
<W> was not [upheld|confirmed|observed] for <S>, since [nearly all|most] records named <V>
[readers|assessors] did not find <W> for <S>, and the entry that they upheld was <V>
no record [matched|tied] <S> to <W>, whereas <V> was found [throughout|in the majority]
[assessors|readers] did not [match|pair] <S> with <W>, and upheld <V> in [most|nearly all] files
the entry [upheld|confirmed] for <S> was <V>, and not <W>
no [link|pairing] of <S> and <W> was [observed|seen], whereas <V> was [upheld|found] throughout
<W> was [refuted|rejected] for <S> in [most|nearly all] files, and <V> was upheld
[most|nearly all] files [upheld|named] <V> for <S> and did not mention <W>
an excess of <W> was not [observed|seen] for <S>, and [most|nearly all] records upheld <V>
[assessors|readers] upheld <V> for <S> in [nearly all|most] files and did not [find|uphold] <W>"""),
)
MAYBE = Verdict(
    "maybe",
    compile_forms("""
in this [subgroup|group] there were too few records on <S> and <V>, and the [two readings|analyses] [disagreed|contradicted each other]
estimates of <V> for <S> in this [subgroup|group] were [imprecise|wide] and pointed both ways
the figures on <S> and <V> changed with the [analysis|method] chosen, and in this [subgroup|group] they were imprecise
in this [subgroup|group] the readings of <S> and <V> [contradicted each other|disagreed], and the files were few
estimates that [link|tie] <S> to <V> were [imprecise|wide] in this [subgroup|group], and [changed|moved] with the analysis
the two analyses of <S> and <V> in this [subgroup|group] [contradicted each other|disagreed]
in this [subgroup|group] the [estimates|figures] for <S> and <V> were imprecise, and the files too few
for this [subgroup|group] the [estimates|readings] of <V> with <S> pointed both ways"""),
)

VERDICTS = (YES,) * 9 + (NO,) * 7 + (MAYBE,) * 4
"""Drawn from: 45 % yes, 35 % no, 20 % maybe."""

UNDECIDED = compile_forms("""
the records do not [decide|settle] [what|which] holds for <S> and <V> here
[more|other] records on <S> and <V> [would be|are] needed for this group
[nothing|too little] is known of <S> and <V> in this group
the [audit|exercise] left [it open|this open] for <S> and <V>""")
"""Why the answer is maybe."""
