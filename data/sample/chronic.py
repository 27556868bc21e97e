"""Chronic illnesses of the sample world, in the notation of `illnesses.py`.

Further lines: `target` a value to aim at, `miss` what to do about a forgotten dose, `again` how often the test is due.
In `say`, {y} is a number of years and {m} the drug that the patient takes. The finding of the question back is how
well the illness is controlled.
"""

CHRONIC_TABLE = """
# 高血压 | 血压高
say 高血压{y}年，吃{m}，药快没了 / 高血压{y}年，一直吃{m} / 血压高{y}年，最近早上血压高 / 有高血压{y}年，怕得新冠
sign 头不晕 / 没有胸闷 / 血压一百三十八
ask 现在血压多少？ > 一百三十五和八十五 > 一百八十五，头晕手麻
why 天冷和紧张血压都会高 / 停药血压会反弹
adult 氨氯地平片 > 一次一片，一天一次，早上
elder 氨氯地平片 > 一次半片，一天一次，早上
test 肾功能 > 肾功能正常 > 肾没有受损，药接着吃 > 肾功能肌酐高 > 肾受损了，要去肾内科
care 少吃盐 / 每天量两次血压 / 饭后散步
diet 咸菜和酒
avoid 不要吃带麻黄的感冒药
warn 高压超过一百八 > 急诊
course 要长期吃药
spread no
target 一百四以下
miss 想起来就补一片，快到明天就不补
again 半年一次

# 二型糖尿病 | 血糖高
say 糖尿病{y}年，吃{m}，药吃完了 / 糖尿病{y}年，一直吃{m} / 血糖高{y}年，最近空腹八点多 / 有糖尿病{y}年，在家不动血糖高了
sign 不口渴 / 没有瘦 / 饭后十点
ask 空腹血糖多少？ > 空腹七点二 > 空腹十八，恶心没力气
why 在家吃得多动得少，血糖会高 / 停药血糖很快上去
adult 二甲双胍片 > 一次两片，一天两次，饭后
elder 二甲双胍片 > 一次一片，一天两次，饭后
test 糖化血红蛋白 > 糖化血红蛋白六点五 > 控制得好，药不用变 > 糖化血红蛋白九点五 > 控制得不好，要去内分泌科调药
care 主食减一半 / 饭后走半小时 / 每周测两次血糖
diet 甜饮料和粥
avoid 不要喝酒
warn 血糖超过十六 > 急诊
course 要长期吃药
spread no
target 空腹七以下
miss 下一顿照常吃，不要补双份
again 三个月一次

# 哮喘 | 哮喘
say 哮喘{y}年，用{m}，药快用完了 / 哮喘{y}年，一直用{m} / 有哮喘{y}年，闻到消毒水胸闷 / 哮喘{y}年，春天怕犯
sign 晚上不喘 / 不发烧 / 能跑步
ask 这周夜里喘醒过吗？ > 没有喘醒 > 天天喘醒，说话都费劲
why 消毒水会刺激气道 / 哮喘要天天用药，不是喘了才用
adult 布地奈德福莫特罗 > 一次两吸，一天两次，漱口前
pregnant 布地奈德福莫特罗 > 一次一吸，一天两次，漱口前
test 呼气峰流速 > 呼气峰流速正常 > 控制得好，药不用变 > 呼气峰流速只有一半 > 控制得差，要去呼吸科
care 吸完药漱口 / 不闻消毒水 / 被子勤晒
diet 冰的和海鲜
avoid 不要吃阿司匹林
warn 说话都喘 > 急诊
course 要长期用药
spread no
target 一周不喘
miss 想起来就补吸，下次照常
again 三个月一次

# 甲减 | 甲减
say 甲减{y}年，吃{m}，药没了 / 甲减{y}年，一直吃{m} / 甲状腺切了{y}年，怕药断了 / 有甲减{y}年，最近怕冷
sign 体重没变 / 不心慌 / 大便正常
ask 早上空腹吃的吗？ > 是空腹吃的 > 心慌手抖，一分钟一百三
why 甲状腺激素不够就怕冷没劲 / 这个药是补身体缺的激素
adult 左甲状腺素钠片 > 一次一片，一天一次，早饭前
pregnant 左甲状腺素钠片 > 一次两片，一天一次，早饭前
elder 左甲状腺素钠片 > 一次半片，一天一次，早饭前
test 促甲状腺激素 > 促甲状腺激素正常 > 药量正好，不用变 > 促甲状腺激素十二 > 药量不够，要去内分泌科加量
care 和牛奶隔四小时 / 注意保暖 / 空腹用白水送
diet 豆浆和咖啡
avoid 不要和钙片一起吃
warn 心慌手抖 > 内分泌科
course 要终身吃药
spread no
target 二点五以下
miss 第二天吃两次的量，分开吃
again 六周一次
"""
