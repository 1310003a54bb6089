from .page import write_report as write_report
from .sources import Sources as Sources
