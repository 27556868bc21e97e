"""What the patient says: openings, follow-up questions, replies and thanks."""

from random import Random

from doctor import Case, pick
from world import DRUGS, Drug, Topic, complaint

# Wordings by intent. {drug} and {verb}: the drug that was named; {complaint}: the complaint; {whom}: who is ill.
ASK = {
    "drug": "吃什么药好|需要用什么药|可以用什么药|用点什么药|{complaint}用什么药|要不要吃药|开点什么药|{complaint}吃点什么药好|有什么药可以用|"
    "该用哪种药",
    "cause": "是什么原因|这是什么病|是怎么回事|{complaint}是什么引起的|是哪里出了问题|会是什么病|能判断是什么病吗|这算什么病",
    "test": "要做什么检查|需要查什么|要不要去医院检查|做哪个检查好|{complaint}查什么|要查哪一项|去医院查什么好|有必要检查吗",
    "care": "平时要注意什么|在家怎么护理|日常注意点什么|还要注意什么|{complaint}要注意什么|生活上注意什么|怎么养比较好",
    "diet": "饮食上注意什么|要忌口吗|什么不能吃|{complaint}忌口什么|吃东西有讲究吗|哪些东西不能碰|有什么忌口",
    "course": "多久能好|大概几天能好|要多长时间|{complaint}多久能好|几天才会好|一般多久恢复|什么时候能好",
    "warn": "什么情况要去医院|到什么程度要去看|出现什么要马上看|{complaint}到什么地步要去医院|哪些情况不能拖|什么时候必须去医院",
    "covid": "会不会是新冠|是不是感染了新冠|是新冠的症状吗|能排除新冠吗|有可能是新冠肺炎吗|{complaint}会是新冠吗|像不像新冠",
    "spread": "会传染吗|会不会传染给家人|{complaint}传染吗|家里人会被传染吗|要和家人分开吗|这个病传不传染",
    "why": "为什么会这样|怎么会得这个|为什么会{complaint}|怎么引起的|好好的怎么会这样",
    "dose": "{drug}怎么{verb}|{drug}一次{verb}多少|{drug}一天{verb}几次|买到{drug}了，怎么{verb}|{drug}{verb}多少量|这个药怎么{verb}|"
    "{drug}的量是多少|"
    "{drug}怎么个用法|{drug}要{verb}几次，一次多少",
    "side": "{drug}有副作用吗|{drug}会不会伤身体|{drug}有什么不良反应|{verb}{drug}会不舒服吗|{drug}副作用大吗|这个药有副作用吗",
    "stop": "{drug}要{verb}多久|{drug}{verb}到什么时候|{drug}什么时候能停|{drug}要{verb}几天|药要用多久|{drug}{verb}几天能停",
    "better": "{verb}了{drug}好多了，还要{verb}吗|{complaint}好一些了，{drug}还{verb}吗|好多了，{drug}能停了吗|今天轻多了，{drug}还要接着{verb}吗",
    "worse": "{verb}了{drug}没有好转，怎么办|{drug}{verb}完还没好，怎么办|要是{verb}了{drug}没好呢|{verb}了三天{drug}，还是{complaint}|"
    "{drug}{verb}了没什么用，怎么办|如果{drug}不管用怎么办|{verb}{drug}几天了，不见好",
    "together": "家里有{other}，能和{drug}一起用吗|{drug}能和{other}一起用吗|还在用{other}，和{drug}冲突吗|{other}和{drug}可以同时用吗|"
    "{drug}和{other}能不能一起",
    "food": "能{eat}{food}吗|可以{eat}{food}吗|{complaint}能{eat}{food}吗|{eat}{food}要紧吗|{eat}点{food}行吗|用药时能{eat}{food}吗",
    "refill": "药怎么开|药没了怎么办|疫情期间怎么拿药|能网上开药吗|去不了医院，{drug}怎么买|{drug}在哪里能开|{drug}怎么续",
    "nostop": "{drug}能停吗|可以停药吗|能不能停几天|{drug}断几天行吗|没有不舒服，{drug}能停吗|{drug}能减量吗",
    "target": "控制到多少算好|指标多少合适|要控制到什么程度|{complaint}控制在多少好|到什么程度算达标",
    "miss": "漏{verb}一次怎么办|{drug}忘{verb}了怎么办|昨天忘了{verb}{drug}，怎么办|{drug}漏了一顿要补吗|有时会忘{verb}{drug}，怎么办",
    "again": "多久复查一次|什么时候复查|{test}多久查一次|复查要隔多久|要几个月查一次|下次什么时候查{test}",
    "before": "去之前能吃点药吗|要不要先吃药|能在家吃药等等看吗|先吃点药行不行",
}
OPEN = "怎么办？|请医生看看。|请问怎么处理？|麻烦医生看看。|该怎么办？|谢谢医生。|要紧吗？|帮我看看吧。|很担心。"
GREETING = "医生您好，|医生你好，|您好，|你好，|大夫您好，|请问医生，"
BACKGROUND = (
    "没有接触过外地的人|一直在家没出门|小区没有病例|还没有吃药|没有去过湖北|三天前去过超市|在家隔离中|家里别人都好"
)
LEAD = "|||那|那|请问|医生，|还想问一下，|好的，|明白了，|好的谢谢，|再问一下，|知道了，|嗯，|另外，"
RESULT = (
    "查了，{result}|{result}，要紧吗？|今天查了，{result}|结果出来了，{result}，怎么办？|报告说{result}|{result}，请看看|"
    "拿到结果了，{result}|刚查完，{result}"
)
THANKS = "好的，谢谢医生。|谢谢医生。|明白了，谢谢。|好的，我知道了。|好，谢谢您。|谢谢您，放心多了。|记住了，谢谢。|好，我照做，谢谢。"
GOING = "好，我马上去。|好的，这就去。|我现在就去，谢谢。|好，听您的，去医院。"
TYPE_PLEASE = "我听不了语音，麻烦打字，|不方便听语音，请打字，|语音打不开，请写一下，|在上班，听不了语音，"
ANYONE = "医生在吗？|您好，看到了吗？|医生，请帮我看看，|在等您回复，|医生，还在吗？"

PLACES = "我在上海，|我在外地，|我们县城，|我家在武汉，|我在北京，|我在广州，|我住在农村，|我在国外，|我们单位，|我家有老人，"
TOPIC_LEAD = "|||请问|我想问一下，|医生，|想咨询，|问一下，"

INFECTIOUS_LOOK = [
    "普通感冒", "流感", "病毒性发热", "急性气管炎", "细菌性支气管炎", "急性咽炎", "过敏性鼻炎", "急性肠炎", "结膜炎", "体温波动",
]  # fmt: skip
"""Illnesses that make a patient ask whether it is Covid."""
SKIN_LOOK = ["荨麻疹", "口腔溃疡"]
"""Further illnesses that make a patient ask whether it is contagious."""

HOME_DRUGS = {
    "adult": "感冒清热颗粒 蒙脱石散 对乙酰氨基酚片 氯雷他定片 蓝芩口服液 铝碳酸镁片 头孢克肟胶囊 奥美拉唑胶囊 右美沙芬片",
    "child": "小儿感冒颗粒 蒙脱石散 布洛芬混悬液 氯雷他定糖浆 蒲地蓝口服液 头孢克肟颗粒 肺热咳喘口服液",
}
FOODS = {"adult": "辣的 海鲜 酒 咖啡 牛奶 鸡蛋 水果 甜的 浓茶", "child": "辣的 海鲜 牛奶 鸡蛋 水果 甜的 巧克力"}
DRINKS = ("酒", "咖啡", "牛奶", "浓茶")


def opening(rng: Random, case: Case, intent: str, text: str = "") -> str:
    """The first message: complaint, sometimes a harmless sign and circumstances, and the question.

    Args:
        intent: what is asked; `alarm` adds the worrying finding, `open` asks for nothing in particular.
        text: the words of the complaint; drawn when absent.
    """
    illness = case.illness
    text = text or complaint(rng, illness, case.person)
    parts = []
    if illness.chronic and case.treatment.drug.name not in text:
        verb = case.treatment.drug.verb
        parts.append(rng.choice((f"在{verb}{case.treatment.drug.name}", f"平时{verb}{case.treatment.drug.name}")))
    if intent == "alarm":
        parts.append(illness.finding.worrying)
    elif rng.random() < 0.35:
        parts.append(rng.choice(illness.sign))
    if rng.random() < 0.25:
        parts.append(pick(rng, BACKGROUND))
    text = "，".join([text, *parts])
    if intent in ("alarm", "open"):
        question = pick(rng, OPEN)
        text += rng.choice("，。") + question if rng.random() < 0.85 else "。"
    else:
        text += rng.choice(("，", "，", "。", "。请问")) + question_words(rng, case, intent) + "？"
    return (pick(rng, GREETING) if rng.random() < 0.2 else "") + text


def question_words(rng: Random, case: Case, intent: str, other: Drug | None = None, food: str = "") -> str:
    """The question itself, without lead and question mark."""
    drug = case.treatment.drug if case.treatment else None
    return pick(rng, ASK[intent]).format(
        complaint=case.illness.complaint,
        drug=drug.name if drug else "",
        verb=drug.verb if drug else "",
        other=other.name if other else "",
        food=food,
        eat="喝" if food in DRINKS else "吃",
        test=case.illness.test.name,
    )


def follow_up(rng: Random, case: Case, intent: str, other: Drug | None = None, food: str = "") -> str:
    """A later question of the dialogue."""
    words = question_words(rng, case, intent, other, food)
    who = case.person
    if who.kind in ("child", "elder") and intent in ("care", "diet", "course", "food", "warn") and rng.random() < 0.4:
        words = who.name + words
    return pick(rng, LEAD) + words + "？"


def result(rng: Random, case: Case, good: bool) -> str:
    """The patient reports the finding of the test."""
    words = pick(rng, RESULT).format(result=case.illness.test.good if good else case.illness.test.bad)
    return words if words[-1] in "？" else words + "。"


def reply(rng: Random, case: Case, worrying: bool) -> str:
    """The reply to the doctor's question back."""
    finding = case.illness.finding
    if worrying:
        return finding.worrying + "。"
    extra = "，" + rng.choice(case.illness.sign) if rng.random() < 0.3 else ""
    return finding.harmless + (extra if extra[1:] not in finding.harmless else "") + "。"


def home_drug(rng: Random, case: Case) -> Drug:
    """A drug that the patient has at home; half the time one that does not go with the case's own."""
    names = HOME_DRUGS["child" if case.person.kind == "child" else "adult"].split()
    drugs = [DRUGS[name] for name in names if name != case.treatment.drug.name]
    clash = [drug for drug in drugs if drug.kind == case.treatment.drug.kind or drug.kind in case.illness.avoid]
    return rng.choice(clash if clash and rng.random() < 0.5 else drugs)


def again(rng: Random, case: Case | None, topic: Topic | None, intent: str, before: str) -> str:
    """The question once more, after an answer that could not be read."""
    words = rng.choice(topic.ask) if topic else question_words(rng, case, intent)
    return pick(rng, before) + words + "？"


def food(rng: Random, case: Case) -> str:
    """Something to eat or drink; alcohol only where the doctor will say no."""
    foods = FOODS["adult" if case.person.kind in ("adult", "elder") else "child"].split()
    return rng.choice([food for food in foods if food != "酒" or food in case.illness.diet])


def topic_question(rng: Random, topic: Topic, first: bool) -> str:
    """An everyday question."""
    words = rng.choice(topic.ask) + "？"
    if first and rng.random() < 0.6:
        return pick(rng, PLACES) + rng.choice(("", "", "请问", "没有发烧，", "家里没有病人，")) + words
    return pick(rng, TOPIC_LEAD) + words
