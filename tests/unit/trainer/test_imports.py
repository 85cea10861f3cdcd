"""Only children carry torch; the service that starts them must stay light."""

import subprocess
import sys


def test_the_serving_process_does_not_import_torch() -> None:
    code = (
        "import sys\n"
        "from services.trainer.app import build\n"
        "from services.trainer.settings import TrainerSettings\n"
        "assert build(TrainerSettings()).name == 'trainer'\n"
        "heavy = {'torch', 'transformers', 'peft', 'numpy', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
