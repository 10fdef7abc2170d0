import pytest

from crosseai.client.push import check_destination
from crosseai.contract import InputError


@pytest.mark.parametrize(
    "destination", ["https://pacs/dicom-web", "dicom://ORTHANC@pacs:104", "dicom-tls://[::1]:2762"]
)
def test_addresses_of_archives(destination: str) -> None:
    assert check_destination(destination).geturl() == destination


@pytest.mark.parametrize(
    "destination", ["", "pacs", "ftp://pacs:21", "dicom://pacs", "dicom://pacs:port", "https://[pacs"]
)
def test_what_is_no_address_of_an_archive(destination: str) -> None:
    with pytest.raises(InputError, match="expected http"):
        check_destination(destination)


@pytest.mark.parametrize("destination", ["https://user:s3cret@pacs/dicom-web", "dicom://AE:s3cret@pacs:104"])
def test_a_password_is_refused_and_not_repeated(destination: str) -> None:
    with pytest.raises(InputError, match="expected no password") as refused:
        check_destination(destination)
    assert "s3cret" not in str(refused.value)
