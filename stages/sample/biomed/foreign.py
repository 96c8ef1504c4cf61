"""Documents in Spanish, German and French from small sets of forms, each about one drug."""

# ruff: noqa: E501 (one form a line)
from __future__ import annotations

import random

from stages.sample.biomed.tables import TABLES
from stages.sample.forms import compile_forms, fill

FOREIGN = {
    "es": compile_forms("""
El medicamento <S> se [usa|emplea|receta] desde hace muchos años en [el hospital|la consulta|la farmacia] de esta ciudad.
La dosis de <S> debe [ajustarse|revisarse] cuando el paciente tiene más de <N> años o [una enfermedad renal|otros tratamientos].
Antes de [comenzar|iniciar] el tratamiento con <S>, el médico [pregunta|se informa] por las alergias y los demás medicamentos.
Los pacientes que toman <S> [deben|tienen que] acudir a una revisión después de <N> días.
En un estudio con <N> personas no se [observaron|encontraron] diferencias entre los dos grupos de edad.
Si aparecen [molestias|síntomas nuevos|dudas], es importante hablar con [el farmacéutico|la enfermera|el médico de familia].
No se debe dejar de tomar <S> sin consultar, aunque el paciente se sienta [bien|mejor|recuperado].
La conservación de <S> requiere un lugar [seco|fresco|oscuro], lejos del alcance de los niños.
Para las mujeres embarazadas existen [otras opciones|recomendaciones especiales] que el especialista puede explicar con calma.
Junto con <S> se [recomienda|aconseja] una alimentación sana y al menos <N> minutos de paseo.
El prospecto de <S> [explica|describe] con detalle lo que hay que hacer si se olvida una toma.
La familia del paciente [recibió|pidió] una hoja con las [instrucciones|indicaciones] escritas en letra grande.
Según el informe número <N>, la mayoría de los enfermos [toleró|aceptó] bien el tratamiento durante el primer año."""),
    "de": compile_forms("""
Das Arzneimittel <S> wird seit vielen Jahren in [der Klinik|der Praxis|der Apotheke] dieser Stadt [verwendet|verordnet|eingesetzt].
Die Dosis von <S> muss [angepasst|überprüft] werden, wenn der Patient älter als <N> Jahre ist oder [eine Nierenkrankheit|andere Mittel] hat.
Vor [dem Beginn|der ersten Gabe] der Behandlung mit <S> fragt der Arzt nach Allergien und nach allen anderen Medikamenten.
Patienten, die <S> einnehmen, [sollen|müssen] nach <N> Tagen zu einer Kontrolle kommen.
In einer Untersuchung mit <N> Personen [fanden|zeigten] sich keine Unterschiede zwischen den beiden Altersgruppen.
Wenn [Beschwerden|neue Zeichen|Fragen] auftreten, ist ein Gespräch mit [dem Apotheker|der Pflegekraft|dem Hausarzt] wichtig.
Man darf <S> nicht ohne Rücksprache absetzen, auch wenn es dem Kranken [gut|besser|wieder besser] geht.
Die Packung mit <S> gehört an einen [trockenen|kühlen|dunklen] Ort, der für Kinder nicht erreichbar ist.
Für schwangere Frauen gibt es [andere Möglichkeiten|besondere Empfehlungen], die der Facharzt in Ruhe erklären kann.
Neben <S> [hilft|empfiehlt sich] eine gesunde Ernährung und täglich ein Spaziergang von <N> Minuten.
Die Packungsbeilage von <S> [erklärt|beschreibt] genau, was zu tun ist, wenn eine Einnahme vergessen wurde.
Die Familie des Patienten [bekam|erbat] ein Blatt mit den [Anweisungen|Hinweisen] in großer Schrift.
Nach dem Bericht Nummer <N> haben die meisten Kranken die Behandlung im ersten Jahr gut [vertragen|angenommen]."""),
    "fr": compile_forms("""
Le médicament <S> est [utilisé|prescrit|employé] depuis de nombreuses années dans [l'hôpital|le cabinet|la pharmacie] de cette ville.
La dose de <S> doit être [adaptée|revue] quand le patient a plus de <N> ans ou [une maladie du rein|d'autres traitements].
Avant de [commencer|débuter] le traitement par <S>, le médecin [demande|vérifie] les allergies et les autres médicaments.
Les patients qui prennent <S> [doivent|devraient] revenir pour un contrôle après <N> jours.
Dans une étude portant sur <N> personnes, aucune différence n'a été [observée|trouvée] entre les deux groupes d'âge.
En cas de [gêne|signes nouveaux|doute], il est important de parler avec [le pharmacien|l'infirmière|le médecin traitant].
Il ne faut pas arrêter <S> sans avis, même si le malade se sent [bien|mieux|guéri].
La boîte de <S> se garde dans un endroit [sec|frais|sombre], hors de la portée des enfants.
Pour les femmes enceintes, il existe [d'autres choix|des conseils particuliers] que le spécialiste peut expliquer calmement.
Avec <S>, on [recommande|conseille] une alimentation saine et au moins <N> minutes de marche.
La notice de <S> [explique|décrit] avec précision ce qu'il faut faire si une prise a été oubliée.
La famille du patient a [reçu|demandé] une feuille avec les [consignes|explications] écrites en gros caractères.
Selon le rapport numéro <N>, la plupart des malades ont bien [supporté|accepté] le traitement pendant la première année."""),
}
"""Whole sentences by language code."""


def foreign_text(rng: random.Random, lang: str) -> tuple[str, str]:
    """A document in ``lang`` about one drug, and the drug's name."""
    drug = rng.choice(TABLES.rows("drugs"))
    forms = rng.sample(FOREIGN[lang], rng.randrange(7, 11))
    sentences = [fill(form, rng.random, drug.name) for form in forms]
    half = len(sentences) // 2
    return f"{' '.join(sentences[:half])}\n\n{' '.join(sentences[half:])}", drug.name
